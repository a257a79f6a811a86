#pragma once

#include "lwm/io/image.h"

namespace lwm::io {

// How stored pixels are turned to stand upright, numbered as EXIF does.
enum class Orientation {
  kUpright = 1,
  kMirrored = 2,      // left and right change places
  kUpsideDown = 3,    // turned by 180 degrees
  kFlipped = 4,       // top and bottom change places
  kTransposed = 5,    // rows and columns change places
  kQuarterRight = 6,  // turned right by 90 degrees
  kTransverse = 7,    // kTransposed, turned by 180 degrees
  kThreeQuartersRight = 8,
};

// The upright image. Cost: one pass.
RgbImage TurnUpright(RgbImage stored, Orientation orientation);

}  // namespace lwm::io
