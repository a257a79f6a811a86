#include "progress.h"

#include <unistd.h>

#include <cstdio>

namespace lwm::app {
namespace {

constexpr double kSecondsOnTerminal = 0.2, kSecondsInFile = 10;
constexpr char kClearLine[] = "\r\033[K";

}  // namespace

Progress::Progress() : terminal_(isatty(STDERR_FILENO) == 1) {}

Progress::~Progress() {
  if (is_open_) std::fprintf(stderr, "%s", kClearLine);
}

bool Progress::is_due() const {
  return MonotonicSeconds() - shown_ >= (terminal_ ? kSecondsOnTerminal : kSecondsInFile);
}

void Progress::Show(const std::string& line) {
  shown_ = MonotonicSeconds();
  is_open_ = terminal_;
  // Back at its beginning, so that messages of others overwrite it.
  std::fprintf(stderr, terminal_ ? "\r\033[K%s\r" : "%s\n", line.c_str());
}

void Progress::Finish(const std::string& line) {
  std::fprintf(stderr, "%s%s\n", is_open_ ? kClearLine : "", line.c_str());
  is_open_ = false;
}

}  // namespace lwm::app
