#include "lwm/ops/linear.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

double WorstRelative(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

void ExpectMatchesFloat64(at::ScalarType dtype, int64_t tokens, int64_t rows, int64_t cols,
                          double bound) {
  at::manual_seed(3);
  const at::Tensor x = at::randn({tokens, cols}).to(dtype), w = at::randn({rows, cols}).to(dtype);
  const at::Tensor dy = at::randn({tokens, rows}).to(dtype);
  at::Tensor dw = at::ones({rows, cols});
  const at::Tensor dx = LinearBackward(dy, x, w, dw);
  const at::Tensor x64 = x.to(at::kDouble), w64 = w.to(at::kDouble), dy64 = dy.to(at::kDouble);
  EXPECT_EQ(dx.scalar_type(), dtype);
  EXPECT_LT(WorstRelative(Linear(x, w), x64.mm(w64.t())), bound);
  EXPECT_LT(WorstRelative(dx, dy64.mm(w64)), bound);
  EXPECT_LT(WorstRelative(dw - 1, dy64.t().mm(x64)), bound);
}

TEST(OpsLinearTest, ForwardAndGradientsMatchFloat64) {
  for (const int64_t tokens : {1, 4, 5, 37, 130}) {
    ExpectMatchesFloat64(at::kFloat, tokens, 70, 33, 1e-6);
    ExpectMatchesFloat64(at::kBFloat16, tokens, 70, 33, 0.006);
  }
}

TEST(OpsLinearTest, EachOfSeveralMatricesGivesItsOwnProduct) {
  at::manual_seed(5);
  for (const int64_t tokens : {3, 17}) {
    const at::Tensor x = at::randn({tokens, 33});
    const std::vector<LinearWeight> w = {at::randn({70, 33}), at::randn({5, 33})};
    const auto y = LinearEach(x, w);
    ASSERT_EQ(y.size(), 2U);
    for (size_t i = 0; i < 2; ++i) EXPECT_TRUE(y[i].equal(Linear(x, w[i])));
  }
}

TEST(OpsLinearTest, FewTokensOfStridedTensorsAreMultipliedToo) {
  at::manual_seed(6);
  const at::Tensor x = at::randn({33, 2}).t(), w = at::randn({33, 70}).t();
  EXPECT_LT(WorstRelative(Linear(x, w), x.to(at::kDouble).mm(w.to(at::kDouble).t())), 1e-6);
}

// More rows than one stripe of the transposed copy holds.
TEST(OpsLinearTest, WeightGradientOfManyRowsIsAddedOnce) {
  at::manual_seed(4);
  const at::Tensor dy = at::randn({9000, 1100}).to(at::kBFloat16);
  const at::Tensor x = at::randn({9000, 3}).to(at::kBFloat16);
  at::Tensor dw = at::ones({1100, 3});
  AddWeightGradient(dy, x, dw);
  EXPECT_LT(WorstRelative(dw - 1, dy.to(at::kDouble).t().mm(x.to(at::kDouble))), 0.006);
  at::Tensor part = at::ones({1000, 3});
  AddWeightGradient(dy.narrow(1, 50, 1000), x, part);
  EXPECT_TRUE(at::allclose(part, dw.narrow(0, 50, 1000), 0.01, 0.5));
}

TEST(OpsLinearTest, MismatchedInputsAreTheCallersError) {
  const at::Tensor x = at::zeros({3, 4}), w = at::zeros({5, 4}), dy = at::zeros({3, 5});
  EXPECT_ERROR(Linear(x, at::zeros({5, 3})), kInvalidArgument);
  EXPECT_ERROR(Linear(x, w.to(at::kBFloat16)), kInvalidArgument);
  at::Tensor dw = at::zeros({5, 4}), wrong = at::zeros({4, 5});
  EXPECT_ERROR(LinearBackward(dy, x, w, wrong), kInvalidArgument);
  EXPECT_ERROR(LinearBackward(at::zeros({2, 5}), x, w, dw), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
