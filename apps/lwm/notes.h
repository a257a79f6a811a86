#pragma once

#include <string>
#include <vector>

namespace lwm::app {

// Prints each note about the input as a line on stderr.
void PrintNotes(const std::vector<std::string>& notes);

}  // namespace lwm::app
