#include "lwm/vision/vqgan.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <functional>
#include <limits>
#include <map>
#include <string>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

using Named = std::map<std::string, at::Tensor>;

config::VqganConfig TinyConfig() {
  config::VqganConfig config;
  config.block_out_channels = {8, 8, 16};
  config.layers_per_block = 1;
  config.latent_channels = 6;
  config.vq_embed_dim = 5;
  config.num_vq_embeddings = 40;
  config.norm_num_groups = 4;
  config.sample_size = 16;
  return config;
}

// Random weights with norms that are not plain and a codebook as wide as the latents.
VqganWeights TinyWeights(const config::VqganConfig& config) {
  at::manual_seed(5);
  VqganWeights weights = RandomVqganWeights(config, 3);
  ForEachWeight(config, weights, [](const VqganSpec& spec, at::Tensor& weight) {
    if (spec.name.find("norm") != std::string::npos)
      weight.add_(at::randn(weight.sizes()), 0.2);
    else if (weight.dim() == 4)
      weight.mul_(2);
    else if (weight.dim() == 2)
      weight = at::randn(weight.sizes());
  });
  return weights;
}

Named InDouble(const config::VqganConfig& config, VqganWeights weights) {
  Named named;
  ForEachWeight(config, weights, [&](const VqganSpec& spec, at::Tensor& weight) {
    named[spec.name] = weight.to(at::kDouble);
  });
  return named;
}

// The model written out by names in f64, from the definition: convolution as unfold and matmul,
// group norm from mean and variance.
class Reference {
 public:
  Reference(const config::VqganConfig& config, Named named)
      : config_(config), named_(std::move(named)) {}

  at::Tensor Latents(const at::Tensor& images_NHWC) const {
    at::Tensor x = images_NHWC.to(at::kDouble).permute({0, 3, 1, 2});
    x = Conv("encoder.conv_in", x, 1, {1, 1});
    for (int64_t i = 0; i < config_.levels(); ++i) {
      for (int64_t j = 0; j < config_.layers_per_block; ++j)
        x = Resnet(Cat("encoder.down_blocks.", i, ".resnets.", j), x);
      if (i + 1 < config_.levels())
        x = Conv(Cat("encoder.down_blocks.", i, ".downsamplers.0.conv"), x, 2, {0, 1});
    }
    x = Tail("encoder", Middle("encoder", x));
    return Conv("quant_conv", x, 1, {0, 0}).permute({0, 2, 3, 1});
  }

  at::Tensor Decode(const at::Tensor& codes_Nhw) const {
    at::Tensor x = named_.at("quantize.embedding.weight")
                       .index({codes_Nhw.to(at::kLong)})
                       .permute({0, 3, 1, 2});
    x = Conv("decoder.conv_in", Conv("post_quant_conv", x, 1, {0, 0}), 1, {1, 1});
    x = Middle("decoder", x);
    for (int64_t i = 0; i < config_.levels(); ++i) {
      for (int64_t j = 0; j <= config_.layers_per_block; ++j)
        x = Resnet(Cat("decoder.up_blocks.", i, ".resnets.", j), x);
      if (i + 1 == config_.levels()) continue;
      x = x.repeat_interleave(2, 2).repeat_interleave(2, 3);
      x = Conv(Cat("decoder.up_blocks.", i, ".upsamplers.0.conv"), x, 1, {1, 1});
    }
    return Tail("decoder", x).permute({0, 2, 3, 1});
  }

 private:
  // `pad`: rows and columns before and after.
  at::Tensor Conv(const std::string& name, const at::Tensor& x, int64_t stride,
                  std::pair<int64_t, int64_t> pad) const {
    const at::Tensor& w = named_.at(name + ".weight");
    const int64_t side = w.size(2);
    const at::Tensor padded =
        at::constant_pad_nd(x, {pad.first, pad.second, pad.first, pad.second});
    const at::Tensor windows_NIhwKK = padded.unfold(2, side, stride).unfold(3, side, stride);
    return at::einsum("nihwkl,oikl->nohw", {windows_NIhwKK, w}) +
           named_.at(name + ".bias").view({1, -1, 1, 1});
  }

  at::Tensor NormSilu(const std::string& name, const at::Tensor& x) const {
    const at::Tensor grouped = x.reshape({x.size(0), config_.norm_num_groups, -1});
    const at::Tensor centred = grouped - grouped.mean(2, true);
    const at::Tensor normal = centred / (centred.square().mean(2, true) + 1e-6).sqrt();
    const at::Tensor y = normal.view(x.sizes()) * named_.at(name + ".weight").view({1, -1, 1, 1}) +
                         named_.at(name + ".bias").view({1, -1, 1, 1});
    return y * y.sigmoid();
  }

  at::Tensor Resnet(const std::string& name, const at::Tensor& x) const {
    at::Tensor y = Conv(name + ".conv1", NormSilu(name + ".norm1", x), 1, {1, 1});
    y = Conv(name + ".conv2", NormSilu(name + ".norm2", y), 1, {1, 1});
    const std::string shortcut = name + ".conv_shortcut";
    return y + (named_.contains(shortcut + ".weight") ? Conv(shortcut, x, 1, {0, 0}) : x);
  }

  at::Tensor Middle(const std::string& side, at::Tensor x) const {
    for (int j = 0; j < 2; ++j) x = Resnet(Cat(side, ".mid_block.resnets.", j), x);
    return x;
  }

  at::Tensor Tail(const std::string& side, const at::Tensor& x) const {
    return Conv(side + ".conv_out", NormSilu(side + ".conv_norm_out", x), 1, {1, 1});
  }

  config::VqganConfig config_;
  Named named_;
};

class VqganTest : public ::testing::Test {
 protected:
  config::VqganConfig config_ = TinyConfig();
  VqganWeights weights_ = TinyWeights(config_);
  Vqgan vqgan_{config_, weights_, at::kFloat};
  Reference reference_{config_, InDouble(config_, weights_)};
};

double Largest(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a.to(at::kDouble) - b.to(at::kDouble)).abs().max().item<double>();
}

at::Tensor RandomImages(at::IntArrayRef sizes) { return at::rand(sizes).mul_(2).sub_(1); }

std::string MessageOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST_F(VqganTest, LatentsMatchTheDefinitionAtOddSizesToo) {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{16, 16}, {9, 22}, {4, 7}}) {
    const at::Tensor images = RandomImages({2, height, width, 3});
    const at::Tensor latents = vqgan_.Latents(images);
    EXPECT_EQ(latents.size(1), height / 4);
    EXPECT_EQ(latents.size(2), width / 4);
    EXPECT_LT(Largest(latents, reference_.Latents(images)), 1e-5);
  }
}

// Wide enough for the forms that only wide convolutions have.
TEST_F(VqganTest, WidePyramidsMatchTheDefinition) {
  config_.block_out_channels = {32, 48};
  config_.norm_num_groups = 8;
  const VqganWeights weights = TinyWeights(config_);
  const Vqgan vqgan(config_, weights, at::kFloat);
  const Reference reference(config_, InDouble(config_, weights));
  const at::Tensor images = RandomImages({2, 14, 11, 3});
  EXPECT_LT(Largest(vqgan.Latents(images), reference.Latents(images)), 1e-5);
  const at::Tensor codes = at::randint(40, {2, 3, 5}, at::kInt);
  EXPECT_LT(Largest(vqgan.Decode(codes), reference.Decode(codes)), 1e-5);
}

TEST_F(VqganTest, WeightsWithGradientsAreUsedAsTheyAreAndGiveTheSame) {
  VqganWeights leaves = weights_;
  ForEachWeight(config_, leaves, [](const VqganSpec&, at::Tensor& weight) {
    weight = weight.clone().requires_grad_();
  });
  const Vqgan live(config_, leaves, at::kFloat);
  const at::Tensor images = RandomImages({1, 16, 16, 3}), latents = live.Latents(images);
  EXPECT_LT(Largest(latents.detach(), vqgan_.Latents(images)), 1e-5);
  latents.square().sum().backward();
  EXPECT_GT(leaves.encoder.conv_in.weight_OIHW.grad().abs().max().item<double>(), 0);
  EXPECT_FALSE(vqgan_.Latents(images).requires_grad());
}

// Mean and variance of one channel over many pixels of almost one value cancel where they are
// summed carelessly.
TEST_F(VqganTest, NormsOfSingleChannelsStayExactInF32) {
  config_.norm_num_groups = 8;
  config_.block_out_channels = {8, 8};
  const VqganWeights weights = TinyWeights(config_);
  const at::Tensor images = RandomImages({1, 96, 96, 3}) * 0.02 + 0.9;
  const at::Tensor exact = Vqgan(config_, weights, at::kDouble).Latents(images);
  const double scale = exact.abs().max().item<double>();
  EXPECT_LT(Largest(Vqgan(config_, weights, at::kFloat).Latents(images), exact), 2e-5 * scale);
}

TEST_F(VqganTest, DecodedImagesMatchTheDefinition) {
  const at::Tensor codes = at::randint(40, {2, 3, 5}, at::kInt);
  EXPECT_LT(Largest(vqgan_.Decode(codes), reference_.Decode(codes)), 1e-5);
  EXPECT_TRUE(at::equal(vqgan_.Decode(codes), vqgan_.Decode(codes.to(at::kLong))));
}

TEST_F(VqganTest, ArithmeticInBf16StaysNear) {
  const Vqgan rounded(config_, weights_, at::kBFloat16);
  const at::Tensor images = RandomImages({1, 16, 16, 3});
  const at::Tensor latents = reference_.Latents(images);
  const double scale = latents.abs().max().item<double>();
  EXPECT_LT(Largest(rounded.Latents(images), latents), 0.06 * scale);
  const at::Tensor codes = at::randint(40, {1, 4, 4}, at::kInt);
  const at::Tensor decoded = reference_.Decode(codes);
  EXPECT_LT(Largest(rounded.Decode(codes), decoded), 0.06 * decoded.abs().max().item<double>());
  EXPECT_EQ(rounded.Latents(images).scalar_type(), at::kFloat);
}

TEST_F(VqganTest, QuantiseFindsTheNearestRowInEveryBlock) {
  const at::Tensor latents = at::randn({3, 29, 31, 5});  // 2697 latents: two blocks and a rest
  const at::Tensor codes = vqgan_.Quantise(latents);
  EXPECT_EQ(codes.scalar_type(), at::kInt);
  const at::Tensor distance = (latents.to(at::kDouble).unsqueeze(3) -
                               weights_.codebook_VC.to(at::kDouble).view({1, 1, 1, 40, 5}))
                                  .square()
                                  .sum(4);
  EXPECT_TRUE(at::equal(codes, distance.argmin(3).to(at::kInt)));
}

TEST_F(VqganTest, TheLowestOfEqualCodesWins) {
  weights_.codebook_VC[31].copy_(weights_.codebook_VC[7]);
  const Vqgan vqgan(config_, weights_, at::kFloat);
  EXPECT_EQ(vqgan.Quantise(weights_.codebook_VC[31].view({1, 1, 1, 5})).item<int>(), 7);
}

TEST_F(VqganTest, ImagesOfABatchDoNotInfluenceEachOther) {
  const at::Tensor images = RandomImages({3, 12, 16, 3});
  const at::Tensor all = vqgan_.Latents(images);
  for (int64_t i = 0; i < 3; ++i)
    EXPECT_LT(Largest(vqgan_.Latents(images.narrow(0, i, 1)), all.narrow(0, i, 1)), 1e-5);
}

TEST_F(VqganTest, NoImagesGiveNoCodes) {
  EXPECT_EQ(vqgan_.Encode(at::zeros({0, 16, 20, 3})).sizes(), (at::IntArrayRef{0, 4, 5}));
  EXPECT_EQ(vqgan_.Decode(at::zeros({0, 4, 5}, at::kInt)).sizes(), (at::IntArrayRef{0, 16, 20, 3}));
}

TEST_F(VqganTest, BadInputIsRefusedByName) {
  const auto says = [&](const std::string& part, const std::function<void()>& run) {
    const std::string message = MessageOf(run);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  says("1 x 1 pixels", [&] { vqgan_.Encode(at::zeros({1, 1, 1, 3})); });
  says("[N,H,W,3]", [&] { vqgan_.Encode(at::zeros({1, 3, 16, 16})); });
  says("NaN", [&] {
    vqgan_.Encode(at::full({1, 16, 16, 3}, std::numeric_limits<float>::quiet_NaN()));
  });
  says("code 40", [&] { vqgan_.Decode(at::full({1, 2, 2}, 40, at::kInt)); });
  says("code -1", [&] { vqgan_.Decode(at::full({1, 2, 2}, -1, at::kInt)); });
  says("integer codes", [&] { vqgan_.Decode(at::zeros({1, 2, 2})); });
  says("[N,h,w,5]", [&] { vqgan_.Quantise(at::zeros({1, 2, 2, 6})); });
}

TEST_F(VqganTest, MissingAndMisshapenWeightsAreNamed) {
  VqganWeights wrong = weights_;
  wrong.decoder.levels[1].resample.bias_O = at::zeros({9});
  EXPECT_NE(MessageOf([&] {
              Vqgan(config_, wrong, at::kFloat);
            }).find("decoder.up_blocks.1.upsamplers.0.conv.bias"),
            std::string::npos);
  wrong.quant_conv.weight_OIHW = at::Tensor();
  EXPECT_NE(MessageOf([&] { Vqgan(config_, wrong, at::kFloat); }).find("quant_conv.weight"),
            std::string::npos);
}

TEST_F(VqganTest, SpecsCountAllParameters) {
  for (const auto& config : {config_, config::VqganConfig()}) {
    int64_t count = 0;
    for (const VqganSpec& spec : VqganSpecs(config)) {
      int64_t product = 1;
      for (const int64_t size : spec.shape) product *= size;
      count += product;
    }
    EXPECT_EQ(count, config.ParameterCount());
  }
}

}  // namespace
}  // namespace lwm::vision
