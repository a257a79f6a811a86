#pragma once

#include <array>
#include <cstdint>

#include "lwm/base/random.h"
#include "lwm/io/image.h"

namespace lwm::vision_train {

// How far training images are changed; 0 switches a change off. White stays white under all.
struct AugmentOptions {
  double flip = 0.5;     // chance of left for right
  double scale = 1.25;   // zoom, log-uniform from 1 / scale to scale; 1 (or 0) = off
  double aspect = 1.1;   // width to height, likewise, the area kept; 1 (or 0) = off
  double shift = 0.1;    // of the side, uniform in +-shift, along each axis
  double gamma = 0.35;   // values v in [0,1] become v^g, g = exp(uniform in +-gamma)
  double permute = 0.3;  // chance of putting the colour channels in a random order

  // Throws Error(kInvalidArgument) naming the option: chances in [0,1], scale and aspect 0 or in
  // [1,8], shift in [0,1], gamma in [0,3].
  void Validate() const;
  // No change at all.
  static AugmentOptions None() { return {0, 0, 0, 0, 0, 0}; }
};

// One drawn change.
struct Warp {
  bool flip = false;
  double zoom_x = 1, zoom_y = 1;    // above 1 the image is enlarged about its middle
  double shift_x = 0, shift_y = 0;  // of the side, to the right and down
  double gamma = 1;
  std::array<int, 3> channels = {0, 1, 2};  // source channel of each channel
};

// Always takes the same number of values from `random`, whatever is switched on.
Warp DrawWarp(const AugmentOptions& options, Random& random);

// Writes `source`, a square image of 2 * size, as `size` x `size` pixels [size,size,3] in [-1,1]:
// gamma on its values, then the mean of 2 x 2 bilinear samples a pixel, white outside the source.
// The warp that changes nothing gives exactly the 2 x 2 averages, up to f32 rounding.
// Cost: about 0.1 ms for size 64. Threads: call on disjoint outputs.
void ApplyWarp(const io::RgbImage& source, const Warp& warp, int64_t size, float* out_HWC);

}  // namespace lwm::vision_train
