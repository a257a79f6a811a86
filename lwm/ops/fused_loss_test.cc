#include "lwm/ops/fused_loss.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <string>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

struct Problem {
  at::Tensor x_TD, head_VD, target_T, weight_T;
};

Problem RandomProblem(int64_t tokens, int64_t vocab, int64_t dim, at::ScalarType dtype) {
  at::manual_seed(5);
  return {at::randn({tokens, dim}).to(dtype), (at::randn({vocab, dim}) * 0.3).to(dtype),
          at::randint(vocab, {tokens}, at::kLong), at::rand({tokens})};
}

double Worst(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual.to(at::kDouble) - expected).abs().max().item<double>();
}
double WorstRelative(const at::Tensor& actual, const at::Tensor& expected) {
  return Worst(actual, expected) / std::max(1e-3, expected.abs().max().item<double>());
}

struct Bounds {
  double nll, gradient;
};

void ExpectMatchesFloat64(const Problem& p, const Bounds& bounds) {
  const at::Tensor x64_TD = p.x_TD.to(at::kDouble).requires_grad_();
  const at::Tensor head64_VD = p.head_VD.to(at::kDouble).requires_grad_();
  const at::Tensor nll64_T =
      -at::log_softmax(x64_TD.mm(head64_VD.t()), 1).gather(1, p.target_T.unsqueeze(1)).squeeze(1);
  const at::Tensor loss64 = (nll64_T * p.weight_T.to(at::kDouble)).sum();
  loss64.backward();
  at::Tensor dhead_VD = at::full(p.head_VD.sizes(), 2.0f);
  const LossResult result = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &dhead_VD);
  EXPECT_LT(Worst(result.nll_T, nll64_T.detach()), bounds.nll);
  EXPECT_NEAR(result.loss, loss64.item<double>(), bounds.nll * p.weight_T.sum().item<double>());
  EXPECT_LT(WorstRelative(result.dx_TD, x64_TD.grad()), bounds.gradient);
  EXPECT_LT(WorstRelative(dhead_VD - 2.0f, head64_VD.grad()), bounds.gradient);
  EXPECT_EQ(result.dx_TD.scalar_type(), p.x_TD.scalar_type());

  const LossResult forward = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, nullptr);
  EXPECT_EQ(forward.loss, result.loss);
  EXPECT_TRUE(forward.nll_T.equal(result.nll_T));
  EXPECT_FALSE(forward.dx_TD.defined());
}

TEST(OpsFusedLossTest, LossAndGradientsMatchFloat64) {
  for (const int64_t tokens : {1, 7, 65})
    for (const int64_t vocab : {1, 5, 130, 1003}) {
      SCOPED_TRACE(testing::Message() << tokens << " tokens, vocab " << vocab);
      ExpectMatchesFloat64(RandomProblem(tokens, vocab, 32, at::kFloat), {5e-6, 2e-6});
      ExpectMatchesFloat64(RandomProblem(tokens, vocab, 32, at::kBFloat16), {5e-6, 0.01});
    }
}

// bf16 rounds inputs and gradients, not logits: the loss of large logits keeps f32 accuracy.
TEST(OpsFusedLossTest, Bf16LossOfPeakedLogitsKeepsItsDigits) {
  Problem p = RandomProblem(300, 700, 64, at::kBFloat16);
  p.head_VD = p.head_VD * 10;
  p.target_T.narrow(0, 0, 200).copy_(p.x_TD.mm(p.head_VD.t()).argmax(1).narrow(0, 0, 200));
  ExpectMatchesFloat64(p, {2e-5, 0.01});
}

TEST(OpsFusedLossTest, SlicesJoinWithoutASeam) {
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const Problem p = RandomProblem(1100, 131072, 32, at::kBFloat16);  // one slice holds 1024 tokens
  at::Tensor whole_VD = at::zeros({131072, 32}), parts_VD = at::zeros({131072, 32});
  const LossResult whole = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &whole_VD);
  double loss = 0;
  for (const int64_t first : {0, 550}) {
    const auto part = [&](const at::Tensor& x) { return x.narrow(0, first, 550); };
    const LossResult half =
        FusedLoss(part(p.x_TD), p.head_VD, part(p.target_T), part(p.weight_T), &parts_VD);
    loss += half.loss;
    EXPECT_TRUE(half.nll_T.equal(part(whole.nll_T)));
    EXPECT_TRUE(half.dx_TD.equal(part(whole.dx_TD)));
  }
  at::set_num_threads(threads);
  EXPECT_NEAR(loss, whole.loss, 1e-9 * loss);
  EXPECT_LT(Worst(parts_VD, whole_VD.to(at::kDouble)), 0.01 * whole_VD.abs().max().item<double>());
}

TEST(OpsFusedLossTest, Bf16LossDoesNotDependOnTheNumberOfThreads) {
  const Problem p = RandomProblem(150, 1000, 48, at::kBFloat16);
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const LossResult one = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, nullptr);
  at::set_num_threads(2);
  const LossResult two = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, nullptr);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.nll_T.equal(two.nll_T));
  EXPECT_EQ(one.loss, two.loss);
}

TEST(OpsFusedLossTest, TheScaleIsThatOfTheGradientsAlone) {
  for (const auto dtype : {at::kFloat, at::kBFloat16}) {
    const Problem p = RandomProblem(40, 61, 16, dtype);
    at::Tensor once_VD = at::zeros({61, 16}), scaled_VD = at::zeros({61, 16});
    const LossResult once = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &once_VD);
    const LossResult scaled =
        FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &scaled_VD, -0.25);
    EXPECT_EQ(scaled.loss, once.loss);
    EXPECT_TRUE(scaled.nll_T.equal(once.nll_T));
    EXPECT_TRUE(scaled.dx_TD.equal(once.dx_TD * -0.25));  // a power of two loses no digits
    EXPECT_TRUE(scaled_VD.equal(once_VD * -0.25));
  }
}

TEST(OpsFusedLossTest, NoTokensGiveZeroLossAndGradient) {
  const Problem p = RandomProblem(0, 10, 8, at::kBFloat16);
  at::Tensor dhead_VD = at::zeros({10, 8});
  const LossResult result = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &dhead_VD);
  EXPECT_EQ(result.loss, 0);
  EXPECT_EQ(result.dx_TD.sizes(), at::IntArrayRef({0, 8}));
  EXPECT_EQ(dhead_VD.abs().max().item<float>(), 0);
}

TEST(OpsFusedLossTest, WeightZeroSilencesATokenEvenWithNan) {
  Problem p = RandomProblem(6, 20, 8, at::kFloat);
  p.weight_T[3] = 0;
  p.x_TD[3][0] = NAN;
  at::Tensor dhead_VD = at::zeros({20, 8});
  const LossResult result = FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, &dhead_VD);
  EXPECT_TRUE(std::isfinite(result.loss));
  EXPECT_TRUE(std::isnan(result.nll_T[3].item<float>()));
  EXPECT_TRUE(result.nll_T.narrow(0, 0, 3).isfinite().all().item<bool>());
  EXPECT_TRUE(result.dx_TD.narrow(0, 4, 2).isfinite().all().item<bool>());
}

TEST(OpsFusedLossTest, ATargetOutsideTheVocabularyIsNamed) {
  for (const int64_t bad : {-1, 10}) {
    Problem p = RandomProblem(5, 10, 8, at::kFloat);
    p.target_T[2] = bad;
    try {
      FusedLoss(p.x_TD, p.head_VD, p.target_T, p.weight_T, nullptr);
      FAIL() << "target " << bad << " accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
      EXPECT_NE(std::string(error.what()).find("target " + std::to_string(bad) + " of token 2"),
                std::string::npos)
          << error.what();
    }
  }
}

}  // namespace
}  // namespace lwm::ops
