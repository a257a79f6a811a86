#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lwm {

// The entry of `known` nearest to `name` in edit distance, or "" when none is near (more than a
// third of the name differs). For "unknown key 'lerning_rate'; did you mean 'learning_rate'?".
std::string NearestName(std::string_view name, const std::vector<std::string>& known);

// The text with '?' for control characters: text from files may hold any byte, and a line for a
// terminal must stay one line.
std::string WithoutControls(std::string text);

// "1.5 GiB", "320 KiB", "17 B".
std::string FormatBytes(double bytes);

// "2 h 05 min", "3 min 20 s", "45 s".
std::string FormatDuration(double seconds);

}  // namespace lwm
