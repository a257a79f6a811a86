#pragma once

#include <cstddef>
#include <filesystem>
#include <span>
#include <string>

#include "lwm/io/image.h"

namespace lwm::io {

// Decodes one image, whose format is found by its content: JPEG, PNG, WebP and TIFF with their
// own libraries, others (BMP, PNM, JPEG 2000, GIF ...) with FFmpeg; the first frame of an
// animation. Grey, CMYK, palette, 16-bit and floating-point pixels become 8-bit RGB, transparency
// is laid on white, images are turned upright as their EXIF or XMP says; colour profiles (ICC)
// are ignored. `where` names the source in errors. Throws Error(kCorruptData) when the bytes are no
// image, a broken or truncated one, or one of more than kMostImagePixels (image_formats.h).
RgbImage DecodeImage(std::span<const std::byte> bytes, const std::string& where);

// The same of a file. Throws Error(kNotFound) too.
RgbImage ReadImage(const std::filesystem::path& path);

// Writes a PNG, atomically. Throws Error(kInvalidArgument) for an image without pixels.
void WritePng(const std::filesystem::path& path, const RgbImage& image);

}  // namespace lwm::io
