#pragma once

#include <string>
#include <vector>

namespace lwm::app {

// One line on stderr for each: what a person should know about the input.
void PrintNotes(const std::vector<std::string>& notes);

}  // namespace lwm::app
