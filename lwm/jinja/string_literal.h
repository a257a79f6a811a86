#pragma once

#include <string>
#include <string_view>

namespace lwm::jinja {

// The value of a string literal, whose inside is given without its quotes: Python's escapes.
// Throws Error(kCorruptData) on half an escape and on a surrogate.
std::string StringValue(std::string_view inside, const std::string& where, int line);

}  // namespace lwm::jinja
