// A gzip file with stored blocks, made by hand: what `gzip` writes of text that it cannot shorten.
#pragma once

#include <algorithm>
#include <cstdint>
#include <string>
#include <string_view>

namespace lwm::testing_support {

inline uint32_t Crc32(std::string_view bytes) {
  uint32_t crc = 0xFFFFFFFF;
  for (const char byte : bytes) {
    crc ^= static_cast<uint8_t>(byte);
    for (int bit = 0; bit < 8; ++bit) crc = crc >> 1 ^ (crc & 1 ? 0xEDB88320 : 0);
  }
  return ~crc;
}

inline std::string GzipBytes(std::string_view content) {
  std::string packed("\x1F\x8B\x08\0\0\0\0\0\0\x03", 10);
  const auto add = [&](uint32_t value, int bytes) {
    for (int i = 0; i < bytes; ++i) packed += static_cast<char>(value >> 8 * i);
  };
  const std::string_view all = content;
  do {
    const std::string_view block = content.substr(0, 0xFFFF);
    content.remove_prefix(block.size());
    const auto size = static_cast<uint32_t>(block.size());
    packed += content.empty() ? '\1' : '\0';
    add(size, 2);
    add(~size, 2);
    packed += block;
  } while (!content.empty());
  add(Crc32(all), 4);
  add(static_cast<uint32_t>(all.size()), 4);
  return packed;
}

}  // namespace lwm::testing_support
