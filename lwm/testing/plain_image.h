#pragma once

#include <cstdint>

#include "lwm/io/image.h"

namespace lwm::testing_support {

// An image of one colour.
inline io::RgbImage PlainImage(int64_t width, int64_t height, uint8_t red, uint8_t green,
                               uint8_t blue) {
  io::RgbImage image{width, height, {}};
  for (int64_t i = 0; i < width * height; ++i)
    image.rgb_HWC.insert(image.rgb_HWC.end(), {red, green, blue});
  return image;
}

}  // namespace lwm::testing_support
