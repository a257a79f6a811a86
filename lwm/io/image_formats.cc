#include "lwm/io/image_formats.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::io {

void RequireImageSize(int64_t width, int64_t height, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, width > 0 && height > 0, where, ": an image of ", width,
                 " x ", height, " pixels");
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, width <= kMostImagePixels / height, where,
                 ": an image of ", width, " x ", height, " pixels; the limit is ", kMostImagePixels,
                 " pixels");
}

RgbImage LaidOnWhite(const std::vector<uint8_t>& rgba_HWC, int64_t width, int64_t height,
                     bool premultiplied) {
  const auto pixels = static_cast<size_t>(width * height);
  RgbImage image{width, height, std::vector<uint8_t>(3 * pixels)};
  const uint8_t* from = rgba_HWC.data();
  uint8_t* to = image.rgb_HWC.data();
  for (size_t i = 0; i < pixels; ++i, from += 4, to += 3)
    for (int c = 0; c < 3; ++c) {
      const int white = 255 - from[3];
      to[c] = static_cast<uint8_t>(premultiplied ? std::min(255, from[c] + white)
                                                 : (from[c] * from[3] + 255 * white + 127) / 255);
    }
  return image;
}

}  // namespace lwm::io
