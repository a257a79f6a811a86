#include "lwm/data/utf8.h"

#include <algorithm>
#include <cstdint>

#include "lwm/base/format.h"

namespace lwm::data {
namespace {

// Which bytes may follow a lead byte: the whole length, and the range of the second byte (the
// others are 80..BF). The ranges exclude overlong forms, surrogates and code points beyond 10FFFF.
struct Lead {
  size_t length;
  uint8_t low, high;
};

Lead DescribeLead(uint8_t byte) {
  if (byte < 0x80) return {1, 0, 0};
  if (byte < 0xC2) return {0, 0, 0};
  if (byte < 0xE0) return {2, 0x80, 0xBF};
  if (byte < 0xF0) {
    const uint8_t low = byte == 0xE0 ? 0xA0 : 0x80;
    const uint8_t high = byte == 0xED ? 0x9F : 0xBF;
    return {3, low, high};
  }
  if (byte > 0xF4) return {0, 0, 0};
  const uint8_t low = byte == 0xF0 ? 0x90 : 0x80;
  const uint8_t high = byte == 0xF4 ? 0x8F : 0xBF;
  return {4, low, high};
}

// How many bytes at the start of `text`, at most lead.length, fit the pattern of `lead`.
size_t MatchedBytes(std::string_view text, const Lead& lead) {
  size_t matched = 1;
  for (; matched < lead.length && matched < text.size(); ++matched) {
    const auto byte = static_cast<uint8_t>(text[matched]);
    const uint8_t low = matched == 1 ? lead.low : 0x80, high = matched == 1 ? lead.high : 0xBF;
    if (byte < low || byte > high) break;
  }
  return matched;
}

}  // namespace

size_t Utf8CharacterLength(std::string_view text) {
  if (text.empty()) return 0;
  const Lead lead = DescribeLead(static_cast<uint8_t>(text[0]));
  return lead.length > 0 && MatchedBytes(text, lead) == lead.length ? lead.length : 0;
}

bool IsUtf8Beginning(std::string_view text) {
  if (text.empty()) return false;
  const Lead lead = DescribeLead(static_cast<uint8_t>(text[0]));
  return text.size() < lead.length && MatchedBytes(text, lead) == text.size();
}

size_t InvalidUtf8At(std::string_view text, bool is_whole) {
  for (size_t at = 0; at < text.size();) {
    if (static_cast<uint8_t>(text[at]) < 0x80) {
      ++at;
      continue;
    }
    const size_t length = Utf8CharacterLength(text.substr(at));
    if (length == 0)
      return !is_whole && IsUtf8Beginning(text.substr(at)) ? std::string_view::npos : at;
    at += length;
  }
  return std::string_view::npos;
}

std::string DescribeInvalidUtf8(std::string_view text, size_t at) {
  const auto line = std::count(text.begin(), text.begin() + static_cast<ptrdiff_t>(at), '\n') + 1;
  return fmt::format(
      "text that is not UTF-8: byte {} (line {}) is {:#04x}; convert it, for instance with "
      "iconv -f WINDOWS-1252 -t UTF-8",
      at, line, static_cast<uint8_t>(text[at]));
}

std::string ReplaceInvalidUtf8(std::string_view text) {
  std::string valid;
  valid.reserve(text.size());
  while (!text.empty()) {
    const size_t length = Utf8CharacterLength(text);
    valid.append(length == 0 ? kReplacement : text.substr(0, length));
    text.remove_prefix(length == 0 ? 1 : length);
  }
  return valid;
}

}  // namespace lwm::data
