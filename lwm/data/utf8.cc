#include "lwm/data/utf8.h"

#include <cstdint>

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
