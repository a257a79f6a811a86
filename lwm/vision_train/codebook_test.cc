#include "lwm/vision_train/codebook.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <set>
#include <string>

#include "lwm/base/error.h"

namespace lwm::vision_train {
namespace {

config::CodebookSection Plain() {
  config::CodebookSection options;
  options.start = "uniform";
  options.warmup = 0;
  options.revive_every = 0;
  return options;
}

at::Tensor NearestCodes(const at::Tensor& z_RC, const at::Tensor& codebook_VC) {
  return (z_RC.unsqueeze(1) - codebook_VC.unsqueeze(0)).square().sum(2).argmin(1);
}

// Latents around `centres` points of a plane.
at::Tensor Clusters(int64_t rows, int64_t centres, double spread) {
  const at::Tensor angle =
      at::arange(rows, at::kFloat).remainder(centres) * (6.2831853 / static_cast<double>(centres));
  return at::stack({angle.cos(), angle.sin()}, 1) + at::randn({rows, 2}) * spread;
}

TEST(CodebookTest, EmaFollowsTheRunningMeanOfItsLatents) {
  at::manual_seed(1);
  config::CodebookSection options = Plain();
  options.decay = 0.9;
  const at::Tensor codebook_VC = at::randn({5, 3});
  at::Tensor row = codebook_VC.to(at::kDouble).clone();
  at::Tensor count = at::ones({5}, at::kDouble), sum = row.clone();
  Codebook codebook(options, 100, 1, codebook_VC);
  for (int64_t step = 0; step < 7; ++step) {
    const at::Tensor z_RC = at::randn({11, 3});
    const at::Tensor code_R = at::randint(4, {11}, at::kLong);  // code 4 is never used
    codebook.AfterStep(step, z_RC, code_R);
    const at::Tensor hot_RV = at::one_hot(code_R, 5).to(at::kDouble);
    count = 0.9 * count + 0.1 * hot_RV.sum(0);
    sum = 0.9 * sum + 0.1 * hot_RV.t().mm(z_RC.to(at::kDouble));
    const at::Tensor total = count.sum();
    const at::Tensor smoothed = (count + 1e-5) / (total + 5 * 1e-5) * total;
    row = sum / smoothed.unsqueeze(1);
    EXPECT_LT((codebook_VC.to(at::kDouble) - row).abs().max().item<double>(), 1e-5) << step;
  }
}

TEST(CodebookTest, StraightThroughGivesCodesForwardAndTheirGradientToLatents) {
  at::manual_seed(2);
  const at::Tensor z_NhwC = at::randn({2, 3, 2, 4}, at::kDouble).set_requires_grad(true);
  const at::Tensor row_VC = at::randn({6, 4}, at::kDouble).set_requires_grad(true);
  const at::Tensor code_R = at::randint(6, {12}, at::kLong);
  const at::Tensor upstream = at::randn({2, 3, 2, 4}, at::kDouble);
  const Quantised quantised = StraightThrough(z_NhwC, row_VC, code_R, true);
  const at::Tensor chosen = row_VC.detach().index_select(0, code_R).view({2, 3, 2, 4});
  EXPECT_LT((quantised.latents_NhwC - chosen).abs().max().item<double>(), 1e-14);
  const double distance = (z_NhwC.detach() - chosen).square().mean().item<double>();
  EXPECT_NEAR(quantised.commitment.item<double>(), distance, 1e-14);
  EXPECT_NEAR(quantised.codebook.item<double>(), distance, 1e-14);
  ((quantised.latents_NhwC * upstream).sum() + quantised.commitment * 0.25 + quantised.codebook)
      .backward();
  const at::Tensor difference = (z_NhwC.detach() - chosen) * (2.0 / 48);
  EXPECT_LT((z_NhwC.grad() - upstream - difference * 0.25).abs().max().item<double>(), 1e-14);
  const at::Tensor row_gradient =
      at::zeros({6, 4}, at::kDouble).index_add_(0, code_R, -difference.reshape({12, 4}));
  EXPECT_LT((row_VC.grad() - row_gradient).abs().max().item<double>(), 1e-14);
}

TEST(CodebookTest, KMeansFindsTheCentresOfClusters) {
  at::manual_seed(3);
  const at::Tensor x_RC = Clusters(600, 6, 0.02);
  // Any start may end with two centres in one cluster; the best of a few does not.
  at::Tensor row_VC;
  double best = 1e9;
  for (uint64_t start = 0; start < 12; ++start) {
    const at::Tensor found_VC = KMeans(x_RC, 6, 10, Random(start));
    const at::Tensor distance_RV = (x_RC.unsqueeze(1) - found_VC.unsqueeze(0)).square().sum(2);
    const double error = std::get<0>(distance_RV.min(1)).mean().item<double>();
    if (error < best) row_VC = found_VC;
    best = std::min(best, error);
  }
  const at::Tensor truth = Clusters(6, 6, 0);
  const at::Tensor distance = (row_VC.unsqueeze(1) - truth.unsqueeze(0)).square().sum(2).sqrt();
  EXPECT_LT(std::get<0>(distance.min(0)).max().item<float>(), 0.02);
  EXPECT_TRUE(at::equal(KMeans(x_RC, 6, 10, Random(5)), KMeans(x_RC, 6, 10, Random(5))));
}

TEST(CodebookTest, KMeansUsesEveryRowThoughTheStartDoesNot) {
  // Most latents are one point, so that most rows start there.
  const at::Tensor x_RC = at::cat({at::zeros({500, 2}), at::arange(20, at::kFloat).view({10, 2})});
  const at::Tensor row_VC = KMeans(x_RC, 11, 12, Random(1));
  EXPECT_DOUBLE_EQ(MeasureUse(NearestCodes(x_RC, row_VC), 11).used_share, 1);
}

TEST(CodebookTest, WarmupEndsWithKMeansOfTheNewestLatents) {
  at::manual_seed(4);
  config::CodebookSection options = Plain();
  options.start = "kmeans";
  options.warmup = 0.05;
  options.kmeans_latents = 60;
  const at::Tensor codebook_VC = at::full({6, 2}, 99.0f);
  Codebook codebook(options, 100, 7, codebook_VC);
  for (int64_t step = 0; step < 5; ++step) {
    EXPECT_TRUE(codebook.IsWarmup(step));
    EXPECT_EQ(codebook_VC[0][0].item<float>(), 99.0f);
    // Early latents are far away and must be forgotten.
    codebook.AfterStep(step, Clusters(30, 6, 0.01) + (step < 3 ? 50 : 0), at::Tensor());
  }
  EXPECT_FALSE(codebook.IsWarmup(5));
  EXPECT_LT((codebook_VC.square().sum(1).sqrt() - 1).abs().max().item<float>(), 0.05);
}

TEST(CodebookTest, TooFewLatentsForTheCodesIsSaid) {
  config::CodebookSection options = Plain();
  options.start = "kmeans";
  Codebook codebook(options, 100, 7, at::zeros({32, 2}));
  try {
    codebook.AfterStep(0, at::zeros({8, 2}), at::Tensor());
    FAIL();
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find("codebook.warmup"), std::string::npos);
  }
}

// Counters that started at 1 with a slow decay kept every code "alive" for longer than a run.
TEST(CodebookTest, CodesNeverUsedComeBackAtTheFirstRevival) {
  at::manual_seed(5);
  config::CodebookSection options = Plain();
  options.revive_every = 20;
  const at::Tensor codebook_VC = at::cat({Clusters(4, 4, 0), at::full({12, 2}, 30.0f)});
  Codebook codebook(options, 1000, 3, codebook_VC);
  int64_t revived = 0;
  for (int64_t step = 0; step < 20; ++step) {
    EXPECT_EQ(revived, 0);
    const at::Tensor z_RC = Clusters(64, 16, 0.01);
    revived += codebook.AfterStep(step, z_RC, NearestCodes(z_RC, codebook_VC));
  }
  EXPECT_EQ(revived, 12);
  EXPECT_LT(codebook_VC.square().sum(1).sqrt().max().item<float>(), 1.1);
  // They are used from then on.
  const at::Tensor code_R = NearestCodes(Clusters(320, 16, 0.01), codebook_VC);
  EXPECT_GT(MeasureUse(code_R, 16).used_share, 0.8);
}

TEST(CodebookTest, RevivedCodesAreDifferentLatentsFarFromTheirCodes) {
  config::CodebookSection options = Plain();
  options.update = "loss";
  options.revive_every = 1;
  const at::Tensor codebook_VC = at::tensor({0.f, 0.f, 70.f, 70.f, 80.f, 80.f}).view({3, 2});
  Codebook codebook(options, 1000, 3, codebook_VC);
  // Latents on a code have no chance; two are away from it.
  const at::Tensor z_RC =
      at::cat({at::zeros({50, 2}), at::tensor({1.f, 2.f, 3.f, 4.f}).view({2, 2})});
  EXPECT_EQ(codebook.AfterStep(0, z_RC, NearestCodes(z_RC, codebook_VC)), 2);
  std::set<float> first = {codebook_VC[1][0].item<float>(), codebook_VC[2][0].item<float>()};
  EXPECT_EQ(first, (std::set<float>{1.f, 3.f}));
}

TEST(CodebookTest, NothingIsRevivedAfterItsPartOfTheRun) {
  config::CodebookSection options = Plain();
  options.revive_every = 1;
  options.revive_until = 0.5;
  at::manual_seed(6);
  const at::Tensor codebook_VC = at::cat({at::zeros({1, 2}), at::full({7, 2}, 30.0f)});
  Codebook codebook(options, 10, 3, codebook_VC);
  EXPECT_EQ(codebook.AfterStep(5, at::randn({9, 2}), at::zeros({9}, at::kLong)), 0);
  EXPECT_GT(codebook.AfterStep(4, at::randn({9, 2}), at::zeros({9}, at::kLong)), 0);
}

TEST(CodebookTest, UseIsCountedAsShareAndPerplexity) {
  const CodeUse use = MeasureUse(at::tensor({0, 0, 3, 3}, at::kInt), 8);
  EXPECT_DOUBLE_EQ(use.used_share, 0.25);
  EXPECT_NEAR(use.perplexity, 2, 1e-12);
}

}  // namespace
}  // namespace lwm::vision_train
