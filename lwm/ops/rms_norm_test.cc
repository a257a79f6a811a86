#include "lwm/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

at::Tensor Reference(const at::Tensor& x_TD, const at::Tensor& w_D, double eps) {
  return x_TD * (x_TD.square().mean(-1, true) + eps).rsqrt() * w_D;
}

double WorstRelative(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

void ExpectMatchesFloat64(at::ScalarType dtype, int64_t rows, int64_t dim, double bound) {
  at::manual_seed(7);
  const at::Tensor x_TD = at::randn({rows, dim}).to(dtype);
  const at::Tensor w_D = (1 + 0.3 * at::randn({dim})).to(dtype);
  const at::Tensor dy_TD = at::randn({rows, dim}).to(dtype);
  at::Tensor x64_TD = x_TD.to(at::kDouble).requires_grad_();
  at::Tensor w64_D = w_D.to(at::kDouble).requires_grad_();
  const at::Tensor y64_TD = Reference(x64_TD, w64_D, 1e-6);
  y64_TD.backward(dy_TD.to(at::kDouble));

  at::Tensor dw_D = at::full({dim}, 3.0f);
  const at::Tensor dx_TD = RmsNormBackward(dy_TD, x_TD, w_D, 1e-6, dw_D);
  EXPECT_EQ(dx_TD.scalar_type(), dtype);
  EXPECT_LT(WorstRelative(RmsNorm(x_TD, w_D, 1e-6), y64_TD.detach()), bound);
  EXPECT_LT(WorstRelative(dx_TD, x64_TD.grad()), bound);
  EXPECT_LT(WorstRelative(dw_D - 3.0f, w64_D.grad()), 5e-7 + 1e-8 * static_cast<double>(rows));
}

TEST(OpsRmsNormTest, ForwardAndGradientsMatchFloat64) {
  for (const int64_t rows : {1, 33, 300})
    for (const int64_t dim : {3, 64, 129, 1000}) {
      SCOPED_TRACE(testing::Message() << rows << " x " << dim);
      ExpectMatchesFloat64(at::kFloat, rows, dim, 1e-6);
      ExpectMatchesFloat64(at::kBFloat16, rows, dim, 0.004);
    }
}

TEST(OpsRmsNormTest, GradientsDoNotDependOnTheNumberOfThreads) {
  const at::Tensor x_TD = at::randn({777, 96}), dy_TD = at::randn({777, 96});
  const at::Tensor w_D = at::randn({96});
  const int threads = at::get_num_threads();
  at::Tensor one_D = at::zeros({96}), two_D = at::zeros({96});
  at::set_num_threads(1);
  const at::Tensor one_TD = RmsNormBackward(dy_TD, x_TD, w_D, 1e-6, one_D);
  at::set_num_threads(2);
  const at::Tensor two_TD = RmsNormBackward(dy_TD, x_TD, w_D, 1e-6, two_D);
  at::set_num_threads(threads);
  EXPECT_TRUE(one_D.equal(two_D));
  EXPECT_TRUE(one_TD.equal(two_TD));
}

TEST(OpsRmsNormTest, LeadingDimsAreRowsAndNoRowsAreFine) {
  const at::Tensor x = at::randn({2, 3, 8}), w = at::randn({8});
  EXPECT_TRUE(RmsNorm(x, w, 1e-5).view({6, 8}).equal(RmsNorm(x.view({6, 8}), w, 1e-5)));
  EXPECT_EQ(RmsNorm(at::empty({0, 8}), w, 1e-5).numel(), 0);
}

TEST(OpsRmsNormTest, WrongInputsAreTheCallersError) {
  const at::Tensor w = at::ones({4});
  EXPECT_ERROR(RmsNorm(at::zeros({2, 5}), w, 1e-6), kInvalidArgument);
  EXPECT_ERROR(RmsNorm(at::zeros({2, 4}).to(at::kDouble), w, 1e-6), kInvalidArgument);
  EXPECT_ERROR(RmsNorm(at::zeros({4, 2}).t(), w, 1e-6), kInvalidArgument);
  EXPECT_ERROR(RmsNorm(at::zeros({2, 4}), w, 0), kInvalidArgument);
  at::Tensor bf16_gradient = at::zeros({4}).to(at::kBFloat16);
  EXPECT_ERROR(RmsNormBackward(at::zeros({2, 4}), at::zeros({2, 4}), w, 1e-6, bf16_gradient),
               kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
