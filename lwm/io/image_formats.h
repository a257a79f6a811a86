#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/image.h"

namespace lwm::io {

// Pixels that an image may have: 268 million, more than any camera gives.
constexpr int64_t kMostImagePixels = int64_t{1} << 28;

// Throws Error(kCorruptData), naming `where` and the limit, unless an image of that size has
// pixels and no more than kMostImagePixels. To be asked before anything is allocated for it.
void RequireImageSize(int64_t width, int64_t height, const std::string& where);

// 8-bit RGBA, [height, width, 4], laid on white. `premultiplied`: colours were multiplied by alpha.
RgbImage LaidOnWhite(const std::vector<uint8_t>& rgba_HWC, int64_t width, int64_t height,
                     bool premultiplied = false);

// One decoder per format, each in its own file with its own library (DecodeJpeg in image_jpeg.cc);
// upright, transparency on white. Throw Error(kCorruptData), naming `where`, for broken and
// truncated images.
RgbImage DecodeJpeg(std::span<const std::byte> bytes, const std::string& where);
RgbImage DecodePng(std::span<const std::byte> bytes, const std::string& where);
RgbImage DecodeTiff(std::span<const std::byte> bytes, const std::string& where);
RgbImage DecodeWebp(std::span<const std::byte> bytes, const std::string& where);

// The image as a PNG file, in image_png.cc.
std::string EncodePng(const RgbImage& image);

}  // namespace lwm::io
