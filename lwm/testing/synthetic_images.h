#pragma once

#include <ATen/ATen.h>

#include <cstdint>

#include "lwm/base/random.h"

namespace lwm::vision_train::testing {

// Coloured discs and boxes on white, [n,size,size,3] in [-1,1]; a pure function of the seed.
inline at::Tensor SyntheticImages(int64_t n, int64_t size, uint64_t seed) {
  at::Tensor images_NHWC = at::ones({n, size, size, 3});
  Random random(seed);
  const at::Tensor axis = at::arange(size, at::kFloat);
  for (int64_t i = 0; i < n; ++i)
    for (int shape = 0; shape < 3; ++shape) {
      const auto side = static_cast<double>(size);
      const at::Tensor x = (axis - side * random.Uniform()).unsqueeze(0);
      const at::Tensor y = (axis - side * random.Uniform()).unsqueeze(1);
      const double radius = side * (0.1 + 0.25 * random.Uniform());
      const at::Tensor inside = random.Uniform() < 0.5
                                    ? (x.square() + y.square()) < radius * radius
                                    : at::maximum(x.abs() + y * 0, y.abs() + x * 0) < radius;
      for (int64_t c = 0; c < 3; ++c)
        images_NHWC[i].select(2, c).masked_fill_(inside, 2 * random.Uniform() - 1);
    }
  return images_NHWC;
}

}  // namespace lwm::vision_train::testing
