#pragma once

#include <cstddef>
#include <string>
#include <string_view>

namespace lwm::data {

// The replacement character U+FFFD in UTF-8.
inline constexpr std::string_view kReplacement = "\xEF\xBF\xBD";

inline constexpr std::string_view kByteOrderMark = "\xEF\xBB\xBF";

// Bytes of the UTF-8 character at the start of `text`, 1 to 4; 0 when there is none (text is empty,
// or its first byte begins no valid character: overlong forms, surrogates and cut characters are
// invalid).
size_t Utf8CharacterLength(std::string_view text);

// True when `text` is not empty, is no whole character, but becomes one with more bytes after it.
bool IsUtf8Beginning(std::string_view text);

// Index of the first byte of `text` that is part of no valid character, npos without one. Unless
// is_whole a character may be cut at the end.
size_t InvalidUtf8At(std::string_view text, bool is_whole);

// "text that is not UTF-8: byte 17 (line 3) is 0xE9; convert it, ...", for the byte that
// InvalidUtf8At found.
std::string DescribeInvalidUtf8(std::string_view text, size_t at);

// `text` with each byte that is part of no valid character replaced by U+FFFD.
std::string ReplaceInvalidUtf8(std::string_view text);

}  // namespace lwm::data
