#include "lwm/base/note.h"

#include <cstdio>
#include <mutex>
#include <set>

#include "lwm/base/text.h"

namespace lwm {
namespace {

struct State {
  std::mutex mutex;
  std::set<std::string> said;
  bool silent = false;
};

State& TheState() {
  static State state;
  return state;
}

}  // namespace

void Note(const std::string& text) {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  if (state.silent || !state.said.insert(text).second) return;
  std::fprintf(stderr, "note: %s\n", WithoutControls(text).c_str());
}

void SilenceNotes() {
  State& state = TheState();
  const std::lock_guard lock(state.mutex);
  state.silent = true;
}

}  // namespace lwm
