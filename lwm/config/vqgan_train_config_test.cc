#include "lwm/config/vqgan_train_config.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::config {
namespace {

constexpr char kRecipe[] = R"(
[model]
block_out_channels = [16, 32]
norm_num_groups = 8
sample_size = 64
space_to_depth = 4
[data]
train = ["samples/clipart", "samples/video"]
weights = [0.9, 0.1]
[train]
run_folder = "runs/x"
steps = 5
)";

VqganTrainConfig Parse(const std::vector<std::string>& overrides = {}) {
  return ParseVqganTrainConfig(kRecipe, "r.toml", overrides);
}

std::string MessageOf(const std::vector<std::string>& overrides, const std::string& more = "") {
  try {
    ParseVqganTrainConfig(kRecipe + more, "r.toml", overrides);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos);
    return error.what();
  }
  return "no error";
}

TEST(VqganTrainConfigTest, RecipeAndOverridesAreRead) {
  const VqganTrainConfig config = Parse({"train.steps=7", "codebook.update=loss"});
  EXPECT_EQ(config.model.sizes.Reduction(), 8);
  EXPECT_EQ(config.data.weights, (std::vector<double>{0.9, 0.1}));
  EXPECT_EQ(config.train.steps, 7);
  EXPECT_EQ(config.codebook.update, "loss");
}

TEST(VqganTrainConfigTest, JsonHoldsEveryKeyAndReadsBack) {
  const Json json = VqganTrainConfigToJson(Parse());
  size_t keys = 0;
  for (const auto& [section, fields] : json.items()) keys += fields.size();
  const auto all = VqganTrainConfigKeys();
  EXPECT_EQ(keys, all.size());
  EXPECT_GT(keys, 50u);
  for (const char* key : {"model.space_to_depth", "codebook.revive_every", "loss.perceptual",
                          "loss.adversarial_start", "train.average", "optimizer.clip_norm"})
    EXPECT_NE(std::find(all.begin(), all.end(), key), all.end()) << key;
  EXPECT_EQ(json["data"]["weights"], Json({0.9, 0.1}));
}

TEST(VqganTrainConfigTest, HelpNamesEveryKey) {
  const std::string help = VqganTrainConfigHelp();
  for (const std::string& key : VqganTrainConfigKeys())
    EXPECT_NE(help.find(key.substr(key.find('.') + 1) + " = "), std::string::npos) << key;
}

TEST(VqganTrainConfigTest, WrongSettingsAreNamed) {
  const auto says = [&](const std::string& part, const std::vector<std::string>& overrides,
                        const std::string& more = "") {
    const std::string message = MessageOf(overrides, more);
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  says("did you mean 'commitment'", {"codebook.comitment=1"});
  says("r.toml:13: unknown key in [train]: 'stepps'", {}, "stepps = 3\n");
  says("did you mean 'codebook'", {}, "[codebok]\ndecay = 0.9\n");
  says("codebook.update", {"codebook.update=magic"});
  says("train.steps", {"train.steps=0"});
  says("data.weights has 1 entries", {"data.weights=[1]"});
  says("no multiple of 8", {"model.sample_size=60"});
  says("norm_num_groups 7", {"model.norm_num_groups=7"});
  says("loss.l1 and loss.mse", {"loss.l1=0", "loss.mse=0"});
  says("optimizer.min_lr", {"optimizer.min_lr=1"});
  says("codebook.kmeans_latents", {"codebook.kmeans_latents=100"});
  says("loss.adversarial", {"loss.perceptual=1", "loss.perceptual_features=discriminator"});
}

}  // namespace
}  // namespace lwm::config
