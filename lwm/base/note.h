#pragma once

#include <string>

namespace lwm {

// One line on stderr about something that the program did of its own accord and the user should
// know ("took the prefix module. off"); the same text once in a process. Safe from many threads.
void Note(const std::string& text);

// Drops all later notes: for ranks other than the first, which would repeat them.
void SilenceNotes();

}  // namespace lwm
