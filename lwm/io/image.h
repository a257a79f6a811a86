#pragma once

#include <cstdint>
#include <vector>

namespace lwm::io {

// An image of 8-bit RGB, [height, width, 3], rows from the top.
struct RgbImage {
  int64_t width = 0, height = 0;
  std::vector<uint8_t> rgb_HWC;
};

}  // namespace lwm::io
