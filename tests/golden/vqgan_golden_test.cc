// VQGANs of diffusers (vq_amused_5level, with the same weights as a published pickle) and of the
// published LWM code (vqgan, read from LWM_GOLDEN only), and the published frame preparation.
#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <map>
#include <string>

#include "lwm/base/json.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/checkpoint/vqgan_names.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/resample.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/vision/frames.h"

namespace lwm::vision {
namespace {
namespace fs = std::filesystem;
using testing_support::GoldenFolder;

double Largest(const at::Tensor& a, const at::Tensor& b) {
  EXPECT_EQ(a.sizes(), b.sizes());
  return (a - b).abs().max().item<double>();
}

at::Tensor ToNHWC(const at::Tensor& x_NCHW) { return x_NCHW.permute({0, 2, 3, 1}).contiguous(); }

void ExpectDiffusersResults(const Vqgan& vqgan) {
  const auto golden =
      checkpoint::LoadTensors(GoldenFolder("vq_amused_5level") / "golden.safetensors");
  for (const std::string image : {"image0", "image1"}) {
    const at::Tensor latents = vqgan.Latents(ToNHWC(golden.at(image)));
    EXPECT_LT(Largest(latents, ToNHWC(golden.at(image + ".latents"))), 1e-5);
    const at::Tensor codes = golden.at(image + ".codes");
    EXPECT_TRUE(at::equal(vqgan.Quantise(latents).to(at::kLong), codes)) << image;
    EXPECT_LT(Largest(vqgan.Decode(codes), ToNHWC(golden.at(image + ".decoded_from_codes"))), 2e-5);
  }
  EXPECT_LT(
      Largest(vqgan.Decode(golden.at("free.codes")), ToNHWC(golden.at("free.decoded_from_codes"))),
      2e-5);
}

TEST(VqganGoldenTest, DiffusersDirectoryGivesItsLatentsCodesAndImages) {
  ExpectDiffusersResults(
      checkpoint::LoadVqgan(GoldenFolder("vq_amused_5level") / "model", at::kFloat));
}

TEST(VqganGoldenTest, PublishedPickleGivesTheSame) {
  const fs::path folder = GoldenFolder("vq_amused_5level");
  ExpectDiffusersResults(checkpoint::LoadVqgan(folder / "lwm_flax" / "vqgan", at::kFloat,
                                               folder / "model" / "config.json"));
}

TEST(VqganGoldenTest, EveryNameHasItsPublishedPathAndShape) {
  const Json keys = ReadJsonFile(GoldenFolder("vq_amused_5level") / "case.json").at("keys");
  const auto source = checkpoint::OpenVqgan(GoldenFolder("vq_amused_5level") / "model");
  const auto specs = VqganSpecs(source->config());
  EXPECT_EQ(specs.size(), keys.size());
  for (const VqganSpec& spec : specs) {
    ASSERT_TRUE(keys.contains(spec.name)) << spec.name;
    EXPECT_EQ(checkpoint::FlaxName(spec.name), keys.at(spec.name).at("flax"));
    EXPECT_EQ(Json(spec.shape), keys.at(spec.name).at("shape"));
  }
}

TEST(VqganGoldenTest, PublishedCodeGivesItsLatentsCodesAndImages) {
  const char* outside = std::getenv("LWM_GOLDEN");
  if (!outside) GTEST_SKIP() << "LWM_GOLDEN is not set";
  const fs::path folder = fs::path(outside) / "lwm" / "vqgan";
  const Json settings = ReadJsonFile(folder / "case.json").at("config");
  config::VqganConfig config;
  config.block_out_channels.clear();
  for (const int64_t multiplier : settings.at("channel_mult"))
    config.block_out_channels.push_back(settings.at("hidden_channels").get<int64_t>() * multiplier);
  config.layers_per_block = settings.at("num_res_blocks");
  config.latent_channels = settings.at("z_channels");
  config.vq_embed_dim = settings.at("quantized_embed_dim");
  config.num_vq_embeddings = settings.at("num_embeddings");
  const checkpoint::VqganSource source(config, io::OpenTensorSource(folder / "vqgan"));
  VqganWeights weights;
  ForEachWeight(config, weights,
                [&](const VqganSpec& spec, at::Tensor& weight) { weight = source.Read(spec); });
  const Vqgan vqgan(config, weights, at::kFloat);
  const auto golden = checkpoint::LoadTensors(folder / "io.safetensors");
  const at::Tensor latents = vqgan.Latents(golden.at("pixels"));
  EXPECT_LT(Largest(latents, golden.at("after_quant_conv")), 2e-5);
  EXPECT_TRUE(at::equal(vqgan.Quantise(latents), golden.at("codes")));
  EXPECT_LT(Largest(vqgan.Decode(golden.at("codes")), golden.at("decoded_unclipped")), 4e-5);
  // Stored as the released decode returns it: clipped.
  const at::Tensor free = vqgan.Decode(golden.at("free_codes"));
  EXPECT_GT(free.max().item<float>(), 1);
  EXPECT_LT(Largest(free.clamp(-1, 1), golden.at("free_decoded")), 4e-5);
}

io::RgbImage ImageOf(const at::Tensor& bytes_HWC) {
  const at::Tensor plain = bytes_HWC.contiguous();
  const auto* data = plain.data_ptr<uint8_t>();
  return {plain.size(1), plain.size(0), {data, data + plain.numel()}};
}

TEST(FramePrepGoldenTest, FramesAreResizedAndCroppedBitForBit) {
  const auto golden = checkpoint::LoadTensors(GoldenFolder("frame_prep") / "frames.safetensors");
  for (int i = 0; i < 5; ++i) {
    const at::Tensor& expected = golden.at("prepared" + std::to_string(i) + "_u8");
    const io::RgbImage frame =
        io::ResizeAndCrop(ImageOf(golden.at("image" + std::to_string(i))), expected.size(0));
    EXPECT_EQ(frame.rgb_HWC, ImageOf(expected).rgb_HWC) << i;
    const std::string scaled = "prepared" + std::to_string(i);
    if (!golden.contains(scaled)) continue;
    EXPECT_TRUE(at::equal(TensorOfFrames({frame})[0], golden.at(scaled)));
  }
}

}  // namespace
}  // namespace lwm::vision
