#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <functional>
#include <string>

namespace lwm::vision_train::testing {

// Expects the gradient of the scalar `loss` with respect to `leaf` (f64, read by `loss`) to match
// central differences at up to `elements` of its elements, spread evenly.
inline void ExpectGradientMatchesDifferences(const std::function<at::Tensor()>& loss,
                                             at::Tensor leaf, const std::string& name,
                                             double tolerance, int64_t elements = 12) {
  const at::Tensor gradient =
      torch::autograd::grad({loss()}, {leaf}, {}, {}, false, /*allow_unused=*/false)[0]
          .contiguous()
          .view({-1});
  constexpr double kStep = 1e-6;
  const at::Tensor flat = leaf.detach().view({-1});
  const int64_t stride = std::max<int64_t>(1, flat.numel() / elements);
  for (int64_t i = 0; i < flat.numel(); i += stride) {
    const double value = flat[i].item<double>();
    flat[i].fill_(value + kStep);
    const double above = loss().item<double>();
    flat[i].fill_(value - kStep);
    const double below = loss().item<double>();
    flat[i].fill_(value);
    EXPECT_NEAR(gradient[i].item<double>(), (above - below) / (2 * kStep), tolerance)
        << name << " element " << i;
  }
}

}  // namespace lwm::vision_train::testing
