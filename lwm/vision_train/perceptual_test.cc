#include "lwm/vision_train/perceptual.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <string>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/gradient_check.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/vision_train/discriminator.h"

namespace lwm::vision_train {
namespace {
namespace fs = std::filesystem;
using testing_support::TemporaryFolder;
using Named = std::vector<std::pair<std::string, at::Tensor>>;

at::Tensor Images(int64_t n, int64_t side, double phase) {
  return at::sin(at::arange(n * side * (side + 1) * 3, at::kDouble) * 0.7 + phase)
      .view({n, side, side + 1, 3})
      .clone();
}

void WriteWeights(const fs::path& path, const Named& weights) {
  std::vector<io::TensorInfo> infos;
  for (const auto& [name, weight] : weights)
    infos.push_back({name, io::DType::kF32, weight.sizes().vec()});
  io::SafetensorsWriter writer(path, infos);
  for (const auto& [name, weight] : weights) {
    const at::Tensor stored = weight.to(at::kFloat).contiguous();
    writer.Write(name, {static_cast<const std::byte*>(stored.const_data_ptr()), stored.nbytes()});
  }
  writer.Finish();
}

// Two convolutions, a pooling, one more; all that a file may hold.
Named SmallNet() {
  const auto values = [](at::IntArrayRef shape, double phase) {
    const int64_t count = c10::multiply_integers(shape);
    return at::sin(at::arange(count, at::kDouble) * 1.3 + phase).view(shape).mul(0.4);
  };
  return {{"level.0.conv.0.weight", values({4, 3, 3, 3}, 0)},
          {"level.0.conv.0.bias", values({4}, 1)},
          {"level.0.conv.1.weight", values({5, 4, 3, 3}, 2)},
          {"level.0.conv.1.bias", values({5}, 3)},
          {"level.0.channel_weight", values({5}, 4).abs()},
          {"level.1.conv.0.weight", values({6, 5, 3, 3}, 5)},
          {"level.1.conv.0.bias", values({6}, 6)},
          {"level.1.channel_weight", values({6}, 7).abs()},
          {"input.mean", values({3}, 8)},
          {"input.std", values({3}, 9).abs() + 0.2}};
}

std::string ReadMessage(const Named& weights) {
  const TemporaryFolder folder;
  WriteWeights(folder / "net.safetensors", weights);
  try {
    FeatureNet::Read(folder / "net.safetensors");
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
  return "accepted";
}

// The definition on one pair of features, pixel by pixel.
double DistanceByDefinition(const at::Tensor& a_CHW, const at::Tensor& b_CHW) {
  double sum = 0;
  for (int64_t y = 0; y < a_CHW.size(1); ++y)
    for (int64_t x = 0; x < a_CHW.size(2); ++x) {
      const at::Tensor a = a_CHW.select(2, x).select(1, y), b = b_CHW.select(2, x).select(1, y);
      const double length_a = std::sqrt(a.dot(a).item<double>() + 1e-6);
      const double length_b = std::sqrt(b.dot(b).item<double>() + 1e-6);
      const at::Tensor difference = a / length_a - b / length_b;
      sum += difference.dot(difference).item<double>();
    }
  return sum / static_cast<double>(a_CHW.size(1) * a_CHW.size(2));
}

TEST(PerceptualDistanceTest, FollowsItsDefinition) {
  const at::Tensor a = Images(2, 5, 0).permute({0, 3, 1, 2}), b = a * a - 0.3;
  const at::Tensor c = Images(2, 3, 1).permute({0, 3, 1, 2}), d = c.abs();
  const at::Tensor distance_N = PerceptualDistance({a, c}, {b, d});
  for (int64_t i = 0; i < 2; ++i)
    EXPECT_NEAR(distance_N[i].item<double>(),
                DistanceByDefinition(a[i], b[i]) + DistanceByDefinition(c[i], d[i]), 1e-12);
  const at::Tensor weights = at::tensor({0.0, 0.0, 2.0}, at::kDouble);
  const at::Tensor twice = PerceptualDistance({a}, {b}, {weights});
  EXPECT_TRUE(at::allclose(PerceptualDistance({a}, {b}, {weights / 2}) * 2, twice));
}

TEST(PerceptualDistanceTest, IsZeroForEqualsAndAtMostFourForOpposites) {
  const at::Tensor a = Images(1, 5, 0).permute({0, 3, 1, 2}) * 100;
  EXPECT_EQ(PerceptualDistance({a}, {a}).item<double>(), 0);
  EXPECT_NEAR(PerceptualDistance({a}, {-a}).item<double>(), 4, 1e-6);
  const at::Tensor silent = at::zeros_like(a);
  EXPECT_EQ(PerceptualDistance({silent}, {silent}).item<double>(), 0);
}

TEST(PerceptualDistanceTest, FeaturesThatDoNotFitAreRefused) {
  const at::Tensor a = at::zeros({1, 2, 3, 3});
  EXPECT_ERROR(PerceptualDistance({}, {}), kInvalidArgument);
  EXPECT_ERROR(PerceptualDistance({a}, {a, a}), kInvalidArgument);
  EXPECT_ERROR(PerceptualDistance({a}, {at::zeros({1, 2, 3, 4})}), kInvalidArgument);
  EXPECT_ERROR(PerceptualDistance({a}, {a}, {at::ones({3})}), kInvalidArgument);
}

TEST(FeatureNetTest, GradientOfTheDistanceMatchesDifferences) {
  const TemporaryFolder folder;
  WriteWeights(folder / "net.safetensors", SmallNet());
  const at::Tensor original = Images(2, 7, 0);
  for (const FeatureNet& net : {FeatureNet::Random({5, 6, 7}, 3, at::kDouble),
                                FeatureNet::Read(folder / "net.safetensors", at::kDouble)}) {
    at::Tensor copy = Images(2, 7, 0.4).requires_grad_(true);
    testing::ExpectGradientMatchesDifferences([&] { return net.Distance(original, copy).mean(); },
                                              copy, "copy", 1e-8, 40);
  }
}

TEST(FeatureNetTest, DistanceGrowsWithTheChangeAndSplitsOverRanks) {
  const FeatureNet net = FeatureNet::Random({8, 8, 8}, 1, at::kDouble);
  const at::Tensor original = Images(4, 8, 0), noise = Images(4, 8, 2);
  EXPECT_EQ(net.Distance(original, original).sum().item<double>(), 0);
  const at::Tensor little = net.Distance(original, original + 0.05 * noise);
  const at::Tensor much = net.Distance(original, original + 0.5 * noise);
  EXPECT_TRUE((little > 0).all().item<bool>());
  EXPECT_TRUE((much > little).all().item<bool>());
  const auto half = [&](int64_t first) {
    return net.Distance(original.narrow(0, first, 2), (original + 0.5 * noise).narrow(0, first, 2));
  };
  EXPECT_TRUE(at::allclose(at::cat({half(0), half(2)}), much, 1e-12, 0));
}

TEST(FeatureNetTest, RandomWeightsAreAFunctionOfTheSeed) {
  const at::Tensor images = Images(1, 8, 0);
  const auto coarsest = [&](uint64_t seed) {
    return FeatureNet::Random({4, 6}, seed).Features(images).back();
  };
  EXPECT_EQ(coarsest(1).sizes(), (at::IntArrayRef{1, 6, 4, 4}));
  EXPECT_TRUE(at::equal(coarsest(1), coarsest(1)));
  EXPECT_FALSE(at::equal(coarsest(1), coarsest(2)));
}

TEST(FeatureNetTest, FilesAreReadWholeAndExactly) {
  const TemporaryFolder folder;
  Named weights = SmallNet();
  WriteWeights(folder / "net.safetensors", weights);
  const FeatureNet net = FeatureNet::Read(folder / "net.safetensors", at::kDouble);
  const auto weight = [&](size_t i) { return weights[i].second.to(at::kFloat).to(at::kDouble); };
  const at::Tensor images = Images(1, 6, 0);
  at::Tensor x = ((images - weight(8)) / weight(9)).permute({0, 3, 1, 2});
  x = at::relu(at::conv2d(x, weight(0), weight(1), 1, 1));
  x = at::relu(at::conv2d(x, weight(2), weight(3), 1, 1));
  const auto features = net.Features(images);
  ASSERT_EQ(features.size(), 2u);
  EXPECT_TRUE(at::allclose(features[0], x, 1e-12, 1e-12));
  x = at::relu(at::conv2d(at::max_pool2d(x, {2, 2}), weight(5), weight(6), 1, 1));
  EXPECT_TRUE(at::allclose(features[1], x, 1e-12, 1e-12));
}

TEST(FeatureNetTest, WrongFilesAreNamed) {
  EXPECT_EQ(ReadMessage(SmallNet()), "accepted");
  for (const size_t missing : {0u, 1u, 6u, 7u, 8u}) {
    Named weights = SmallNet();
    const std::string name = weights[missing].first;
    weights.erase(weights.begin() + static_cast<int64_t>(missing));
    EXPECT_NE(ReadMessage(weights).find(name), std::string::npos) << name;
  }
  Named extra = SmallNet();
  extra.push_back({"level.2.surplus", at::ones({1})});
  EXPECT_NE(ReadMessage(extra).find("level.2.surplus"), std::string::npos);
  Named infinite = SmallNet();
  infinite[5].second = infinite[5].second / 0.0;
  EXPECT_NE(ReadMessage(infinite).find("level.1.conv.0.weight"), std::string::npos);
  Named shape = SmallNet();
  shape[5].second = at::ones({6, 4, 3, 3});
  EXPECT_NE(ReadMessage(shape).find("[6, 4, 3, 3]"), std::string::npos);
}

TEST(FeatureNetTest, BadNetsAndImagesAreRefused) {
  EXPECT_ERROR(FeatureNet::Random({}, 1), kInvalidArgument);
  EXPECT_ERROR(FeatureNet::Random({4, 0}, 1), kInvalidArgument);
  const FeatureNet net = FeatureNet::Random({4, 4, 4}, 1);
  EXPECT_ERROR(net.Features(at::zeros({1, 3, 8, 3})), kInvalidArgument);
  EXPECT_ERROR(net.Features(at::zeros({1, 3, 8, 8})), kInvalidArgument);
}

TEST(FeatureNetTest, DiscriminatorFeaturesServeToo) {
  const PatchDiscriminator discriminator({.channels = 4, .levels = 1, .norm_groups = 2}, 1);
  const at::Tensor a = Images(2, 9, 0).to(at::kFloat), b = Images(2, 9, 1).to(at::kFloat);
  const at::Tensor distance_N =
      PerceptualDistance(discriminator.Features(a), discriminator.Features(b));
  EXPECT_TRUE((distance_N > 0.01).all().item<bool>());
}

}  // namespace
}  // namespace lwm::vision_train
