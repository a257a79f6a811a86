#pragma once

#include <cstddef>
#include <map>
#include <span>
#include <string>

namespace lwm::io {

// The entries of a zip archive whose files are stored, not compressed: full name -> bytes inside
// `file`. Sizes and places come from the central directory (zip64 included), never from local
// headers, whose sizes may be zero. Throws Error(kCorruptData) on a truncated or damaged directory,
// an entry outside the file, a repeated name, compression or encryption.
std::map<std::string, std::span<const std::byte>> ReadStoredZip(std::span<const std::byte> file,
                                                                const std::string& where);

}  // namespace lwm::io
