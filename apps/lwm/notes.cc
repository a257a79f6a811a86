#include "notes.h"

#include <cstdio>

namespace lwm::app {

void PrintNotes(const std::vector<std::string>& notes) {
  for (const std::string& note : notes) std::fprintf(stderr, "lwm: %s\n", note.c_str());
}

}  // namespace lwm::app
