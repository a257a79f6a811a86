#include "lwm/config/vqgan_config.h"

#include <gtest/gtest.h>

#include <functional>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::config {
namespace {

Json TinyJson() {
  return {{"_class_name", "VQModel"}, {"block_out_channels", {8, 16}},    {"layers_per_block", 1},
          {"latent_channels", 6},     {"vq_embed_dim", nullptr},          {"num_vq_embeddings", 32},
          {"norm_num_groups", 4},     {"mid_block_add_attention", false}, {"sample_size", 32}};
}

// The message of parsing a changed TinyJson, which must fail.
std::string MessageOf(const std::function<void(Json&)>& change) {
  Json json = TinyJson();
  change(json);
  try {
    ParseVqganConfig(json, "c.json");
  } catch (const Error& error) {
    return error.what();
  }
  ADD_FAILURE() << "accepted " << json.dump();
  return "";
}

TEST(VqganConfigTest, DefaultsAreThePublishedSize) {
  VqganConfig config;
  config.Validate();
  EXPECT_EQ(config.ParameterCount(), 146244675);
  EXPECT_EQ(config.Reduction(), 16);
}

TEST(VqganConfigTest, AbsentEmbedDimIsTheLatentWidth) {
  EXPECT_EQ(ParseVqganConfig(TinyJson(), "c.json").vq_embed_dim, 6);
  Json json = TinyJson();
  json.erase("vq_embed_dim");
  EXPECT_EQ(ParseVqganConfig(json, "c.json").vq_embed_dim, 6);
  json["vq_embed_dim"] = 5;
  EXPECT_EQ(ParseVqganConfig(json, "c.json").vq_embed_dim, 5);
}

TEST(VqganConfigTest, WrittenJsonReadsBackEqual) {
  Json json = TinyJson();
  json["vq_embed_dim"] = 5;
  const VqganConfig config = ParseVqganConfig(json, "c.json");
  const Json written = VqganConfigToJson(config);
  EXPECT_EQ(VqganConfigToJson(ParseVqganConfig(written, "again")), written);
  EXPECT_EQ(written.at("block_out_channels"), json.at("block_out_channels"));
  EXPECT_EQ(written.at("vq_embed_dim"), 5);
  EXPECT_EQ(written.at("norm_num_groups"), 4);
  EXPECT_EQ(written.at("sample_size"), 32);
}

TEST(VqganConfigTest, AttentionInTheMiddleIsRefusedAlsoAsTheDefault) {
  const std::string wanted = "mid_block_add_attention must be false";
  EXPECT_NE(MessageOf([](Json& j) { j["mid_block_add_attention"] = true; }).find(wanted),
            std::string::npos);
  EXPECT_NE(MessageOf([](Json& j) { j.erase("mid_block_add_attention"); }).find(wanted),
            std::string::npos);
}

TEST(VqganConfigTest, WhatIsNotComputedIsRefusedByName) {
  const auto refuse = [](const char* key, const Json& value) {
    const std::string message = MessageOf([&](Json& j) { j[key] = value; });
    EXPECT_NE(message.find(key), std::string::npos) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos);
  };
  refuse("act_fn", "gelu");
  refuse("norm_type", "spatial");
  refuse("_class_name", "AutoencoderKL");
  refuse("down_block_types", {"DownEncoderBlock2D", "AttnDownEncoderBlock2D"});
  refuse("up_block_types", {"UpDecoderBlock2D"});
  refuse("in_channels", 4);
  refuse("block_out_channels", {8, 10});
  refuse("block_out_channels", Json::array());
  refuse("num_vq_embeddings", 0);
  refuse("layers_per_block", "two");
  refuse("layers_per_block", -1);
}

TEST(VqganConfigTest, FramesAreAWholeNumberOfCodes) {
  const VqganConfig config;  // 16 pixels a code, made for 256
  EXPECT_EQ(config.CodesPerFrame(0), 256);
  EXPECT_EQ(config.CodesPerFrame(32), 4);
  for (const int64_t size : {8, 40}) EXPECT_ERROR(config.CodesPerFrame(size), kInvalidArgument);
}

TEST(VqganConfigTest, MissingSizeIsNamedNotGuessed) {
  for (const char* key : {"block_out_channels", "layers_per_block", "latent_channels",
                          "num_vq_embeddings", "sample_size"})
    EXPECT_NE(MessageOf([&](Json& j) { j.erase(key); }).find(key), std::string::npos);
}

}  // namespace
}  // namespace lwm::config
