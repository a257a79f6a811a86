#pragma once

#include <cstddef>
#include <cstdint>
#include <map>
#include <span>
#include <string>

namespace lwm::io {

struct ZipEntry {
  std::span<const std::byte> bytes;
  uint32_t crc32 = 0;  // as the archive states it; writers that skip it write 0
};

// The entries of a zip archive whose files are stored, not compressed, by full name; their bytes
// are not checked against crc32. Sizes and places come from the central directory (zip64 included),
// never from local headers, whose sizes may be zero. Throws Error(kCorruptData) on a truncated or
// damaged directory, an entry outside the file, a repeated name, compression or encryption.
std::map<std::string, ZipEntry> ReadStoredZip(std::span<const std::byte> file,
                                              const std::string& where);

// Whether the directory at the end of a zip archive is there; an unfinished download lacks it.
bool HasZipDirectory(std::span<const std::byte> file) noexcept;
// The file from the first entry's content on, by its local header; empty when there is none.
std::span<const std::byte> FromFirstEntry(std::span<const std::byte> file) noexcept;

// The checksum of zip archives. About 0.4 GB/s.
uint32_t Crc32(std::span<const std::byte> bytes) noexcept;

}  // namespace lwm::io
