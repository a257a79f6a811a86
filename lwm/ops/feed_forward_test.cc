#include "lwm/ops/feed_forward.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

double WorstRelative(const at::Tensor& actual, const at::Tensor& expected) {
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

FeedForwardWeights RandomWeights(int64_t dim, int64_t ffn, at::ScalarType dtype) {
  return {(at::randn({ffn, dim}) * 0.3).to(dtype), (at::randn({ffn, dim}) * 0.3).to(dtype),
          (at::randn({dim, ffn}) * 0.3).to(dtype)};
}

FeedForwardGradients Leaves(const FeedForwardWeights& weights) {
  const auto leaf = [](const LinearWeight& w) {
    return w.dense().to(at::kDouble).requires_grad_();
  };
  return {leaf(weights.gate_FD), leaf(weights.up_FD), leaf(weights.down_DF)};
}

void ExpectMatchesFloat64(at::ScalarType dtype, int64_t tokens, int64_t slice, double bound) {
  constexpr int64_t kDim = 37, kFfn = 101;
  at::manual_seed(11);
  const FeedForwardWeights weights = RandomWeights(kDim, kFfn, dtype);
  const at::Tensor x_TD = at::randn({tokens, kDim}).to(dtype);
  const at::Tensor dy_TD = at::randn({tokens, kDim}).to(dtype);
  const FeedForwardGradients leaves = Leaves(weights);
  const at::Tensor x64_TD = x_TD.to(at::kDouble).requires_grad_();
  const at::Tensor y64_TD = (at::silu(x64_TD.mm(leaves.gate_FD.t())) * x64_TD.mm(leaves.up_FD.t()))
                                .mm(leaves.down_DF.t());
  y64_TD.backward(dy_TD.to(at::kDouble));

  FeedForwardGradients gradients{at::ones({kFfn, kDim}), at::ones({kFfn, kDim}),
                                 at::ones({kDim, kFfn})};
  const at::Tensor dx_TD = FeedForwardBackward(dy_TD, x_TD, weights, slice, gradients);
  EXPECT_LT(WorstRelative(FeedForward(x_TD, weights, slice), y64_TD.detach()), bound);
  EXPECT_LT(WorstRelative(dx_TD, x64_TD.grad()), bound);
  EXPECT_LT(WorstRelative(gradients.gate_FD - 1, leaves.gate_FD.grad()), bound);
  EXPECT_LT(WorstRelative(gradients.up_FD - 1, leaves.up_FD.grad()), bound);
  EXPECT_LT(WorstRelative(gradients.down_DF - 1, leaves.down_DF.grad()), bound);
}

TEST(OpsFeedForwardTest, ForwardAndGradientsMatchFloat64ForAnySlice) {
  for (const int64_t slice : {1, 16, 50, 1000}) {
    SCOPED_TRACE(slice);
    ExpectMatchesFloat64(at::kFloat, 50, slice, 1e-6);
    ExpectMatchesFloat64(at::kBFloat16, 50, slice, 0.012);
  }
}

// Four tokens and fewer run as Gemv.
TEST(OpsFeedForwardTest, FewTokensMatchFloat64) {
  for (const int64_t tokens : {1, 4, 5}) {
    SCOPED_TRACE(tokens);
    ExpectMatchesFloat64(at::kFloat, tokens, 16, 1e-6);
    ExpectMatchesFloat64(at::kBFloat16, tokens, 16, 0.012);
  }
}

TEST(OpsFeedForwardTest, NoTokensGiveNoGradient) {
  const FeedForwardWeights weights = RandomWeights(8, 12, at::kFloat);
  FeedForwardGradients gradients{at::zeros({12, 8}), at::zeros({12, 8}), at::zeros({8, 12})};
  EXPECT_EQ(FeedForward(at::empty({0, 8}), weights, 4).size(0), 0);
  EXPECT_EQ(
      FeedForwardBackward(at::empty({0, 8}), at::empty({0, 8}), weights, 4, gradients).size(0), 0);
  EXPECT_EQ(gradients.gate_FD.abs().max().item<float>(), 0);
}

TEST(OpsFeedForwardTest, ATokenWithNanLeavesTheOthersAlone) {
  const FeedForwardWeights weights = RandomWeights(8, 12, at::kFloat);
  at::Tensor x_TD = at::randn({5, 8});
  const at::Tensor clean_TD = FeedForward(x_TD, weights, 2);
  x_TD[2][3] = NAN;
  const at::Tensor y_TD = FeedForward(x_TD, weights, 2);
  EXPECT_TRUE(y_TD[2].isnan().all().item<bool>());
  for (const int64_t t : {0, 1, 3, 4}) EXPECT_TRUE(at::allclose(y_TD[t], clean_TD[t], 1e-5, 1e-6));
}

TEST(OpsFeedForwardTest, MismatchedInputsAreTheCallersError) {
  FeedForwardWeights weights = RandomWeights(8, 12, at::kFloat);
  EXPECT_ERROR(FeedForward(at::zeros({2, 9}), weights, 4), kInvalidArgument);
  EXPECT_ERROR(FeedForward(at::zeros({2, 8}), weights, 0), kInvalidArgument);
  weights.down_DF = weights.down_DF.dense().t();
  EXPECT_ERROR(FeedForward(at::zeros({2, 8}), weights, 4), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
