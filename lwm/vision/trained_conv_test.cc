#include "lwm/vision/trained_conv.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::vision {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.detach().to(at::kDouble) - expected.detach()).abs().max() /
          expected.detach().abs().max())
      .item<double>();
}

// Result and gradients against at::conv2d in f64 of the same (rounded) inputs.
double WorstError(at::ScalarType dtype, int64_t in, int64_t out, int64_t kernel, int64_t stride) {
  at::manual_seed(static_cast<uint64_t>(in + kernel));
  const int64_t padding = stride == 1 ? kernel / 2 : 0;
  std::vector<at::Tensor> leaves = {
      at::randn({2, in, 7, 9}).to(dtype).contiguous(kChannelsLast),
      at::randn({out, in, kernel, kernel}).to(dtype).contiguous(kChannelsLast),
      at::randn({out}).to(dtype)};
  std::vector<at::Tensor> exact;
  for (at::Tensor& leaf : leaves) {
    exact.push_back(leaf.to(at::kDouble).set_requires_grad(true));
    leaf.set_requires_grad(true);
  }
  const at::Tensor y = TrainedConv(leaves[0], leaves[1], leaves[2], stride, padding);
  const at::Tensor expected = at::conv2d(exact[0], exact[1], exact[2], stride, padding);
  EXPECT_TRUE(y.is_contiguous(kChannelsLast));
  const at::Tensor dy = at::randn(expected.sizes()).to(dtype);
  const auto actual = torch::autograd::grad({y}, leaves, {dy});
  const auto wanted = torch::autograd::grad({expected}, exact, {dy.to(at::kDouble)});
  EXPECT_TRUE(actual[1].is_contiguous(kChannelsLast));
  double worst = RelativeError(y, expected);
  for (size_t i = 0; i < actual.size(); ++i)
    worst = std::max(worst, RelativeError(actual[i], wanted[i]));
  return worst;
}

TEST(TrainedConvTest, ResultAndGradientsMatchF64) {
  for (const int64_t kernel : {1, 3})
    for (const int64_t in : {3, 16, 33}) {
      EXPECT_LT(WorstError(at::kFloat, in, 24, kernel, 1), 1e-6) << in << " " << kernel;
      EXPECT_LT(WorstError(at::kBFloat16, in, 24, kernel, 1), 8e-3) << in << " " << kernel;
    }
}

TEST(TrainedConvTest, WideOnesMatchF64) {
  EXPECT_LT(WorstError(at::kFloat, 33, 48, 3, 1), 3e-6);
  EXPECT_LT(WorstError(at::kFloat, 33, 48, 3, 2), 1e-6);
}

TEST(TrainedConvTest, StridesHaveGradientsToo) {
  EXPECT_LT(WorstError(at::kFloat, 16, 8, 3, 2), 1e-6);
  EXPECT_LT(WorstError(at::kBFloat16, 16, 8, 3, 2), 8e-3);
}

TEST(TrainedConvTest, OtherDtypesAreRefused) {
  EXPECT_ERROR(TrainedConv(at::zeros({1, 2, 3, 3}), at::zeros({2, 2, 1, 1}, at::kBFloat16),
                           at::zeros({2}), 1, 0),
               kInvalidArgument);
}

}  // namespace
}  // namespace lwm::vision
