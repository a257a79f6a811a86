#include "lwm/checkpoint/vqgan_import.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <functional>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/vqgan_names.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_vqgan.h"

namespace lwm::checkpoint {
namespace {
namespace fs = std::filesystem;
using testing_support::SmallestVqganConfig;
using testing_support::TemporaryFolder;

// A VQModel directory; `change` may alter or drop (by an undefined tensor) weights.
void WriteDirectory(const fs::path& folder,
                    const std::function<void(const std::string&, at::Tensor&)>& change = {},
                    const std::vector<std::string>& extra = {}) {
  vision::VqganWeights weights = vision::RandomVqganWeights(SmallestVqganConfig(), 9);
  std::vector<std::pair<std::string, at::Tensor>> named;
  vision::ForEachWeight(SmallestVqganConfig(), weights,
                        [&](const vision::VqganSpec& spec, at::Tensor& weight) {
                          if (change) change(spec.name, weight);
                          if (weight.defined()) named.emplace_back(spec.name, weight);
                        });
  for (const std::string& name : extra) named.emplace_back(name, at::zeros({2}));
  std::vector<io::TensorInfo> infos;
  for (const auto& [name, weight] : named)
    infos.push_back({name, io::DType::kF32, weight.sizes().vec()});
  fs::create_directories(folder);
  WriteFileAtomically(folder / "config.json",
                      config::VqganConfigToJson(SmallestVqganConfig()).dump());
  io::SafetensorsWriter writer(folder / "diffusion_pytorch_model.safetensors", infos);
  for (const auto& [name, weight] : named)
    writer.Write(name, {static_cast<const std::byte*>(weight.data_ptr()), weight.nbytes()});
  writer.Finish();
}

bool SameWeights(const VqganSource& a, const VqganSource& b) {
  for (const vision::VqganSpec& spec : vision::VqganSpecs(a.config()))
    if (!at::equal(a.Read(spec), b.Read(spec))) return false;
  return true;
}

std::string MessageOf(const std::function<void()>& run) {
  try {
    run();
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

TEST(VqganImportTest, EveryWeightSurvivesThePickleAndBack) {
  const TemporaryFolder folder;
  WriteDirectory(folder / "a");
  const auto a = OpenVqgan(folder / "a");
  SaveVqganPickle(*a, folder / "b", at::kFloat);
  const auto b = OpenVqgan(folder / "b");
  EXPECT_EQ(b->source().format(), "vqgan-pickle");
  EXPECT_TRUE(SameWeights(*a, *b));
  SaveVqganDiffusers(*b, folder / "c", at::kFloat);
  EXPECT_TRUE(SameWeights(*a, *OpenVqgan(folder / "c")));
  SaveVqganPickle(*OpenVqgan(folder / "c"), folder / "d", at::kFloat);
  EXPECT_EQ(ReadFile(folder / "b" / "vqgan"), ReadFile(folder / "d" / "vqgan"));
}

TEST(VqganImportTest, FlaxNamesFollowTheOrderOfUse) {
  EXPECT_EQ(FlaxName("encoder.conv_in.weight"), "encoder/Conv_0/kernel");
  EXPECT_EQ(FlaxName("encoder.conv_norm_out.weight"), "encoder/GroupNorm_0/scale");
  EXPECT_EQ(FlaxName("decoder.up_blocks.3.resnets.2.conv_shortcut.bias"),
            "decoder/UpsamplingBlock_3/ResnetBlock_2/Conv_2/bias");
  EXPECT_EQ(FlaxName("decoder.up_blocks.0.upsamplers.0.conv.weight"),
            "decoder/UpsamplingBlock_0/Upsample_0/Conv_0/kernel");
  EXPECT_EQ(FlaxName("encoder.mid_block.resnets.1.norm2.bias"),
            "encoder/MidBlock_0/ResnetBlock_1/GroupNorm_1/bias");
  EXPECT_EQ(FlaxName("post_quant_conv.weight"), "post_quant_conv/kernel");
  EXPECT_EQ(FlaxName("quantize.embedding.weight"), "quantize/embeddings");
}

TEST(VqganImportTest, AModelDirectoryMayHoldTheVqgan) {
  const TemporaryFolder folder;
  WriteDirectory(folder / "model" / "vqgan");
  EXPECT_EQ(LoadVqgan(folder / "model", at::kFloat).config().num_vq_embeddings, 10);
}

TEST(VqganImportTest, PickleWithoutConfigAsksForOne) {
  const TemporaryFolder folder;
  WriteDirectory(folder / "a");
  SaveVqganPickle(*OpenVqgan(folder / "a"), folder / "b", at::kFloat);
  fs::remove(folder / "b" / "config.json");
  EXPECT_NE(MessageOf([&] { OpenVqgan(folder / "b" / "vqgan"); }).find("--config"),
            std::string::npos);
  EXPECT_TRUE(SameWeights(*OpenVqgan(folder / "a"),
                          *OpenVqgan(folder / "b" / "vqgan", folder / "a" / "config.json")));
}

TEST(VqganImportTest, MissingExtraMisshapenAndInfiniteWeightsAreNamed) {
  const std::string name = "decoder.up_blocks.1.resnets.0.conv1.weight";
  const auto load = [&](const std::function<void(at::Tensor&)>& change) {
    const TemporaryFolder folder;
    WriteDirectory(folder / "a", [&](const std::string& weight_name, at::Tensor& weight) {
      if (weight_name == name) change(weight);
    });
    return MessageOf([&] { LoadVqgan(folder / "a", at::kFloat); });
  };
  EXPECT_NE(load([](at::Tensor& w) { w = at::Tensor(); }).find(name), std::string::npos);
  EXPECT_NE(load([](at::Tensor& w) { w = at::zeros({4, 8, 1, 3}); }).find(name), std::string::npos);
  EXPECT_NE(load([](at::Tensor& w) { w.fill_(INFINITY); }).find(name), std::string::npos);
  const TemporaryFolder folder;
  WriteDirectory(folder / "a", {}, {"encoder.mid_block.attentions.0.to_q.bias"});
  EXPECT_NE(MessageOf([&] { OpenVqgan(folder / "a"); }).find("attentions"), std::string::npos);
}

TEST(VqganImportTest, WhatTheDtypeCannotHoldIsRefusedAndLeavesNothing) {
  const TemporaryFolder folder;
  WriteDirectory(folder / "a", [](const std::string& name, at::Tensor& weight) {
    if (name == "quant_conv.bias") weight.fill_(1e6);
  });
  const auto source = OpenVqgan(folder / "a");
  EXPECT_NE(MessageOf([&] {
              SaveVqganDiffusers(*source, folder / "b", at::kHalf);
            }).find("quant_conv.bias"),
            std::string::npos);
  EXPECT_NE(MessageOf([&] { SaveVqganPickle(*source, folder / "b", at::kBFloat16); }).find("bf16"),
            std::string::npos);
  EXPECT_FALSE(fs::exists(folder / "b"));
  SaveVqganDiffusers(*source, folder / "b", at::kBFloat16);
  EXPECT_EQ(OpenVqgan(folder / "b")
                ->Read(vision::VqganSpecs(SmallestVqganConfig()).front())
                .scalar_type(),
            at::kBFloat16);
}

TEST(VqganImportTest, AnotherModelIsNoVqgan) {
  const TemporaryFolder folder;
  fs::create_directories(folder / "a");
  io::SafetensorsWriter writer(folder / "a" / "model.safetensors",
                               {{"model.norm.weight", io::DType::kF32, {0}}});
  writer.Finish();
  EXPECT_NE(MessageOf([&] { OpenVqgan(folder / "a"); }).find("no VQGAN"), std::string::npos);
}

}  // namespace
}  // namespace lwm::checkpoint
