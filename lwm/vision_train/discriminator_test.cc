#include "lwm/vision_train/discriminator.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <map>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/gradient_check.h"

namespace lwm::vision_train {
namespace {

DiscriminatorConfig Small(int64_t levels = 2) {
  return {.channels = 4, .levels = levels, .norm_groups = 2};
}

// Images in [-1,1] that do not depend on the state of LibTorch's generator.
at::Tensor Images(int64_t n, int64_t height, int64_t width, double phase,
                  at::ScalarType dtype = at::kDouble) {
  return at::sin(at::arange(n * height * width * 3, dtype) * 0.7 + phase)
      .view({n, height, width, 3})
      .clone();
}

// Weights large enough that every layer matters.
void Enlarge(PatchDiscriminator& discriminator, double times) {
  for (auto& [name, weight] : discriminator.weights()) {
    const bool is_norm = name.find("norm") != std::string::npos;
    if (!is_norm) weight.detach().mul_(times);
  }
}

TEST(PatchDiscriminatorTest, GivesOneLogitAPatch) {
  for (const auto& [levels, side, patches] :
       {std::array<int64_t, 3>{2, 64, 14}, {3, 64, 6}, {1, 6, 1}, {2, 15, 1}}) {
    const PatchDiscriminator discriminator(Small(levels), 1);
    const at::Tensor images = Images(2, side, side + 1, 0, at::kFloat);
    const at::Tensor logits = discriminator.Logits(images);
    EXPECT_EQ(logits.size(0), 2);
    EXPECT_EQ(logits.size(1), patches);
    EXPECT_EQ(logits.scalar_type(), at::kFloat);
    EXPECT_EQ(discriminator.Features(images).size(), static_cast<size_t>(levels) + 1);
  }
}

// Two groups of channels, each brought to mean 0 and variance 1 over channels and positions.
at::Tensor NormByDefinition(const at::Tensor& x_NCHW, const at::Tensor& scale,
                            const at::Tensor& shift) {
  const at::Tensor x = x_NCHW.reshape({x_NCHW.size(0), 2, -1});
  const at::Tensor centred = x - x.mean(2, true);
  const at::Tensor unit = centred / (centred.square().mean(2, true) + 1e-6).sqrt();
  return unit.view(x_NCHW.sizes()) * scale.view({1, -1, 1, 1}) + shift.view({1, -1, 1, 1});
}

TEST(PatchDiscriminatorTest, LogitsFollowTheDefinition) {
  PatchDiscriminator discriminator(Small(), 4, at::kDouble);
  Enlarge(discriminator, 10);
  std::map<std::string, at::Tensor> weight;
  for (const auto& [name, value] : discriminator.weights()) {
    value.detach().add_(0.1);
    weight[name] = value.detach();
  }
  const at::Tensor images = Images(2, 17, 16, 0);
  at::Tensor x = images.permute({0, 3, 1, 2});
  for (const std::string level : {"level.0.", "level.1.", "level.2."}) {
    x = at::conv2d(x, weight[level + "conv.weight"], weight[level + "conv.bias"],
                   level == "level.2." ? 1 : 2, 1);
    if (level != "level.0.")
      x = NormByDefinition(x, weight[level + "norm.weight"], weight[level + "norm.bias"]);
    x = at::where(x > 0, x, 0.2 * x);
  }
  x = at::conv2d(x, weight["out.weight"], weight["out.bias"], 1, 1);
  EXPECT_TRUE(at::allclose(discriminator.Logits(images), x.squeeze(1), 1e-10, 1e-10));
}

TEST(PatchDiscriminatorTest, WeightsAreAFunctionOfTheSeedAndLive) {
  PatchDiscriminator one(Small(), 5), again(Small(), 5), other(Small(), 6);
  const at::Tensor images = Images(1, 16, 16, 0, at::kFloat);
  EXPECT_TRUE(at::equal(one.Logits(images), again.Logits(images)));
  EXPECT_FALSE(at::equal(one.Logits(images), other.Logits(images)));
  EXPECT_EQ(one.weights().front().first, "level.0.conv.weight");
  EXPECT_EQ(one.weights().size(), 12u);
  one.weights().back().second.detach().add_(3);
  EXPECT_TRUE(at::allclose(one.Logits(images), again.Logits(images) + 3, 0, 1e-6));
}

TEST(PatchDiscriminatorTest, EveryGradientMatchesDifferences) {
  PatchDiscriminator discriminator(Small(), 2, at::kDouble);
  Enlarge(discriminator, 15);
  at::Tensor images = Images(2, 14, 13, 0.3).requires_grad_(true);
  const at::Tensor others = Images(2, 14, 13, 2.1);
  const auto loss = [&] {
    return DiscriminatorHingeLoss(discriminator.Logits(images), discriminator.Logits(others));
  };
  testing::ExpectGradientMatchesDifferences(loss, images, "images", 1e-8);
  for (const auto& [name, weight] : discriminator.weights())
    testing::ExpectGradientMatchesDifferences(loss, weight, name, 1e-8);
}

TEST(PatchDiscriminatorTest, HalvesOfABatchGiveTheGradientOfTheWhole) {
  PatchDiscriminator discriminator(Small(), 3, at::kDouble);
  Enlarge(discriminator, 10);
  const at::Tensor real = Images(4, 16, 16, 0), fake = Images(4, 16, 16, 1);
  for (const auto& [name, weight] : discriminator.weights()) {
    const auto gradient = [&](int64_t first, int64_t count) {
      const at::Tensor loss =
          DiscriminatorHingeLoss(discriminator.Logits(real.narrow(0, first, count)),
                                 discriminator.Logits(fake.narrow(0, first, count)));
      return torch::autograd::grad({loss}, {weight})[0];
    };
    EXPECT_TRUE(at::allclose((gradient(0, 2) + gradient(2, 2)) / 2, gradient(0, 4), 1e-9, 1e-12))
        << name;
  }
}

TEST(PatchDiscriminatorTest, WeightGradientsCanBeSwitchedOff) {
  PatchDiscriminator discriminator(Small(), 3);
  discriminator.RequireGradients(false);
  at::Tensor images = Images(1, 16, 16, 0, at::kFloat);
  EXPECT_FALSE(discriminator.Logits(images).requires_grad());
  images.requires_grad_(true);
  const at::Tensor loss = GeneratorHingeLoss(discriminator.Logits(images));
  EXPECT_GT(GradientOf(loss, images).norm().item<double>(), 0);
  discriminator.RequireGradients(true);
  EXPECT_TRUE(discriminator.weights().front().second.requires_grad());
}

// A few steps of gradient descent tell black from white.
TEST(PatchDiscriminatorTest, Learns) {
  PatchDiscriminator discriminator(Small(), 8);
  const at::Tensor real = Images(2, 16, 16, 0, at::kFloat).abs();
  const at::Tensor fake = -Images(2, 16, 16, 1, at::kFloat).abs();
  double first = 0, last = 0;
  for (int step = 0; step < 60; ++step) {
    const at::Tensor loss =
        DiscriminatorHingeLoss(discriminator.Logits(real), discriminator.Logits(fake));
    last = loss.item<double>();
    if (step == 0) first = last;
    std::vector<at::Tensor> leaves;
    for (const auto& [name, weight] : discriminator.weights()) leaves.push_back(weight);
    const auto gradients = torch::autograd::grad({loss}, leaves);
    for (size_t i = 0; i < leaves.size(); ++i) leaves[i].detach().sub_(gradients[i], 0.1);
  }
  EXPECT_NEAR(first, 1, 0.15);
  EXPECT_LT(last, 0.2);
}

TEST(PatchDiscriminatorTest, BadConfigsAndImagesAreRefused) {
  EXPECT_ERROR(PatchDiscriminator({.channels = 6, .levels = 2, .norm_groups = 4}, 1),
               kInvalidArgument);
  EXPECT_ERROR(PatchDiscriminator({.channels = 8, .levels = 0}, 1), kInvalidArgument);
  const PatchDiscriminator discriminator(Small(), 1);
  EXPECT_ERROR(discriminator.Logits(at::zeros({1, 11, 16, 3})), kInvalidArgument);
  EXPECT_ERROR(discriminator.Logits(at::zeros({1, 3, 16, 16})), kInvalidArgument);
}

TEST(HingeLossTest, IsTheMeanOfWhatFallsShortOfTheMargin) {
  const at::Tensor real = at::tensor({2.0, 0.5, -1.0}, at::kDouble);
  const at::Tensor fake = at::tensor({-2.0, 1.0, -0.5}, at::kDouble);
  EXPECT_NEAR(DiscriminatorHingeLoss(real, fake).item<double>(), (2.5 / 3 + 2.5 / 3) / 2, 1e-12);
  EXPECT_NEAR(GeneratorHingeLoss(fake).item<double>(), 0.5, 1e-12);
}

TEST(AdversarialScheduleTest, BalancesTheTwoGradientsFromItsStart) {
  at::Tensor weight = at::tensor({3.0, -1.0}, at::kDouble).requires_grad_(true);
  const double reconstruction = GradientOf(weight.square().sum(), weight).norm().item<double>();
  EXPECT_NEAR(reconstruction, 2 * std::sqrt(10.0), 1e-12);
  EXPECT_EQ(GradientOf(at::ones({1}).requires_grad_(true).sum(), weight).abs().max().item<double>(),
            0);
  const AdversarialSchedule schedule = {.start_step = 10, .factor = 0.5, .maximum = 100};
  EXPECT_EQ(schedule.Weight(9, 6, 2), 0);
  EXPECT_NEAR(schedule.Weight(10, 6, 2), 1.5, 1e-3);
  EXPECT_NEAR(schedule.Weight(10, 6, 0), 50, 1e-9);
  EXPECT_EQ(schedule.Weight(10, std::numeric_limits<double>::quiet_NaN(), 2), 0);
  EXPECT_FALSE((AdversarialSchedule{.factor = 0}).IsOn(100));
}

}  // namespace
}  // namespace lwm::vision_train
