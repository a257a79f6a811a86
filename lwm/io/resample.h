#pragma once

#include <cstdint>
#include <string>

#include "lwm/io/image.h"

namespace lwm::io {

// Bicubic (a = -0.5) resize with a filter that widens when shrinking (antialiased), axis by axis in
// fixed point with 22 fraction bits and 8-bit values in between: bit for bit what Image.resize of
// Pillow 13 gives. Rows are resized first, but columns are when the height shrinks by more than
// twice as many pixels as the width (earlier Pillows: always rows). Sizes >= 1.
// Throws Error(kInvalidArgument) on an empty image or size.
RgbImage ResizeBicubic(const RgbImage& image, int64_t width, int64_t height);

// The published frame preparation: short side to `size`, the other to floor(size * long / short),
// then the middle size x size, its left and top edge rounded half to even.
// Cost: one resize. Throws Error(kInvalidArgument) as ResizeBicubic does, and, naming `where`, when
// the longer side would pass 32768 pixels.
RgbImage ResizeAndCrop(const RgbImage& image, int64_t size, const std::string& where = "an image");

}  // namespace lwm::io
