#pragma once

#include <array>
#include <cstdint>
#include <vector>

#include "lwm/io/image.h"

namespace lwm::io {

using Colour = std::array<uint8_t, 3>;  // red, green, blue

struct IndexedImage {
  std::vector<Colour> palette;    // at most 256
  std::vector<uint8_t> index_HW;  // of a palette colour, rows from the top
};

// The image with at most 256 colours: exact, palette in order of appearance, when it has no more;
// else cells of 8 x 8 x 8 colours are joined into 256 boxes, always splitting the box of the
// largest squared error at its mean along its widest axis, and every cell takes the nearest box's
// mean. Without dithering, so that neighbouring equal pixels stay equal.
// Throws Error(kInvalidArgument) on an image without pixels.
IndexedImage MakeIndexed(const RgbImage& image);

}  // namespace lwm::io
