#include "lwm/vision/conv2d.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <vector>

#include "lwm/ops/product.h"

namespace lwm::vision {
namespace {

double RelativeError(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.detach().to(at::kDouble) - expected.detach()).abs().max() /
          expected.detach().abs().max())
      .item<double>();
}

TEST(Conv2dTest, ResultAndGradientsMatchF64AtEveryStride) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t stride : {1, 2}) {
      SCOPED_TRACE(testing::Message() << dtype << " stride " << stride);
      at::manual_seed(2);
      std::vector<at::Tensor> leaves, exact;
      for (const at::Tensor& x :
           {at::randn({2, 3, 9, 8}), at::randn({20, 3, 4, 4}), at::randn({20})}) {
        leaves.push_back(x.to(dtype).set_requires_grad(true));
        exact.push_back(leaves.back().detach().to(at::kDouble).set_requires_grad(true));
      }
      const at::Tensor y = Conv2d(leaves[0], leaves[1], leaves[2], stride, 1);
      const at::Tensor expected = at::conv2d(exact[0], exact[1], exact[2], stride, 1);
      ASSERT_EQ(y.sizes(), expected.sizes());
      EXPECT_EQ(y.scalar_type(), dtype);
      const double bound = dtype == at::kFloat ? 1e-6 : 8e-3;
      EXPECT_LT(RelativeError(y, expected), bound);
      const at::Tensor dy = at::randn(y.sizes()).to(dtype);
      const auto actual = torch::autograd::grad({y}, leaves, {dy});
      const auto wanted = torch::autograd::grad({expected}, exact, {dy.to(at::kDouble)});
      for (size_t i = 0; i < actual.size(); ++i) {
        EXPECT_EQ(actual[i].scalar_type(), dtype);
        EXPECT_LT(RelativeError(actual[i], wanted[i]), bound) << i;
      }
    }
}

TEST(Conv2dTest, BiasMayBeMissing) {
  const at::Tensor x = at::randn({1, 4, 5, 5}).to(at::kBFloat16);
  const at::Tensor weight = at::randn({3, 4, 3, 3}).to(at::kBFloat16);
  const at::Tensor exact = at::conv2d(x.to(at::kDouble), weight.to(at::kDouble), {}, 1, 1);
  EXPECT_LT(RelativeError(Conv2d(x, weight, {}, 1, 1), exact), 6e-3);
}

TEST(Conv2dTest, ArithmeticIsTheDtypeOrWider) {
  EXPECT_EQ(ConvArithmetic(at::kFloat), at::kFloat);
  EXPECT_EQ(ConvArithmetic(at::kDouble), at::kDouble);
  EXPECT_EQ(ConvArithmetic(at::kBFloat16),
            ops::LibTorchMultipliesBf16() ? at::kBFloat16 : at::kFloat);
}

}  // namespace
}  // namespace lwm::vision
