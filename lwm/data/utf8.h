#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lwm::data {

// The replacement character U+FFFD in UTF-8.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

// Bytes of the UTF-8 character at the start of `text`, 1 to 4; 0 when there is none (text is empty,
// or its first byte begins no valid character: overlong forms, surrogates and cut characters are
// invalid).
size_t Utf8CharacterLength(std::string_view text);

// True when `text` is not empty, is no whole character, but becomes one with more bytes after it.
bool IsUtf8Beginning(std::string_view text);

// `text` with each byte that is part of no valid character replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace lwm::data
