#include "lwm/io/orientation.h"

#include <cstring>
#include <utility>

namespace lwm::io {
namespace {

// Where the stored pixel (0, 0) goes, and how far from there its neighbours to the right and below
// go, in pixels.
struct Steps {
  int64_t first = 0, right = 0, down = 0;
};

Steps StepsOf(Orientation orientation, int64_t width, int64_t height) {
  const int64_t last_x = width - 1, last_y = height - 1;
  switch (orientation) {
    case Orientation::kUpright:
      return {0, 1, width};
    case Orientation::kMirrored:
      return {last_x, -1, width};
    case Orientation::kUpsideDown:
      return {last_y * width + last_x, -1, -width};
    case Orientation::kFlipped:
      return {last_y * width, 1, -width};
    case Orientation::kTransposed:  // the upright rows have `height` pixels from here on
      return {0, height, 1};
    case Orientation::kQuarterRight:
      return {last_y, height, -1};
    case Orientation::kTransverse:
      return {last_x * height + last_y, -height, -1};
    case Orientation::kThreeQuartersRight:
      return {last_x * height, -height, 1};
  }
  return {0, 1, width};
}

}  // namespace

RgbImage TurnUpright(RgbImage stored, Orientation orientation) {
  if (orientation == Orientation::kUpright) return stored;
  const Steps steps = StepsOf(orientation, stored.width, stored.height);
  RgbImage upright{stored.width, stored.height, std::vector<uint8_t>(stored.rgb_HWC.size())};
  if (orientation >= Orientation::kTransposed) std::swap(upright.width, upright.height);
  const uint8_t* from = stored.rgb_HWC.data();
  for (int64_t y = 0; y < stored.height; ++y) {
    int64_t to = steps.first + y * steps.down;
    for (int64_t x = 0; x < stored.width; ++x, from += 3, to += steps.right)
      std::memcpy(upright.rgb_HWC.data() + 3 * to, from, 3);
  }
  return upright;
}

}  // namespace lwm::io
