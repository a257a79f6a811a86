#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "lwm/io/image.h"

namespace lwm::io {

// Decodes one picture of any format that OpenCV reads (PNG, JPEG, WebP, TIFF, BMP ...): grey, CMYK,
// palette, 16-bit and floating-point pixels become 8-bit RGB, transparency is laid on white, JPEGs
// are turned upright as their EXIF says. `where` names the source in errors.
// Throws Error(kCorruptData) when the bytes are no picture, or a broken or truncated one.
RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where);

// The same of a file; of an animated GIF the first frame. Throws Error(kNotFound) too.
RgbImage ReadImage(const std::filesystem::path& path);

// Writes a PNG, atomically.
void WritePng(const std::filesystem::path& path, const RgbImage& image);

}  // namespace lwm::io
