#include "lwm/config/recipe.h"

#include <gtest/gtest.h>

#include "lwm/config/train_config.h"
#include "lwm/config/vqgan_train_config.h"

namespace lwm::config {
namespace {

using Names = std::vector<std::string>;

const Names kKeys = {"data.scale", "data.row_tokens", "pictures.scale", "train.run_folder",
                     "train.steps"};

std::string MessageOf(const std::string& setting) {
  try {
    ParseSetting(setting, kKeys);
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    return error.what();
  }
  return "no error";
}

TEST(RecipeTest, KeysAreFoundWithoutTheirSectionOrWithAWrongOne) {
  EXPECT_EQ(KeysNamed("steps", kKeys), Names{"train.steps"});
  EXPECT_EQ(KeysNamed("model.steps", kKeys), Names{"train.steps"});
  EXPECT_EQ(KeysNamed("run-folder", kKeys), Names{"train.run_folder"});
  EXPECT_EQ(KeysNamed("scale", kKeys), (Names{"data.scale", "pictures.scale"}));
  EXPECT_EQ(KeysNamed("pictures.scale", kKeys), Names{"pictures.scale"});
  EXPECT_EQ(KeysNamed("stepz", kKeys), Names());
}

TEST(RecipeTest, KeysAreFoundByNearSpelling) {
  EXPECT_EQ(KeysLike("stepz", kKeys), Names{"train.steps"});
  EXPECT_EQ(KeysLike("tran.steps", kKeys), Names{"train.steps"});
  EXPECT_EQ(KeysLike("train.stepz", kKeys), Names{"train.steps"});
  EXPECT_EQ(KeysLike("scael", kKeys), (Names{"data.scale", "pictures.scale"}));
  EXPECT_EQ(KeysLike("temperature", kKeys), Names());
}

TEST(RecipeTest, SettingsWithoutSectionAreToldTheirKey) {
  const SettingText setting = ParseSetting("train.steps=a=b", kKeys);
  EXPECT_EQ(setting.section, "train");
  EXPECT_EQ(setting.name, "steps");
  EXPECT_EQ(setting.value, "a=b");
  EXPECT_EQ(MessageOf("steps=10"),
            "--set steps=10: want section.key=value, as in --set train.steps=10");
  EXPECT_EQ(MessageOf("row_tokens"),
            "--set row_tokens: want section.key=value, as in --set data.row_tokens=VALUE");
  EXPECT_EQ(MessageOf("nonsense"),
            "--set nonsense: want section.key=value, as in --set train.steps=100");
}

// Takes the "# " from the lines of `text` between the one that is `from` and an empty one.
std::string WithoutComment(std::string text, const std::string& from) {
  size_t at = text.find(from);
  EXPECT_NE(at, std::string::npos);
  for (; at < text.size() && text[at] == '#'; at = text.find('\n', at) + 1) text.erase(at, 2);
  return text;
}

TEST(RecipeTest, TemplatesReadBackAsTheDefaults) {
  const Names needed = {"train.run_folder=x", "train.steps=1", "data.train=x",
                        "train.rows_per_step=1", "data.train_tokenizer_vocab=300"};
  EXPECT_EQ(TrainConfigToJson(ParseTrainConfig(TrainConfigTemplate(), "template", needed)),
            TrainConfigToJson(ParseTrainConfig("", "nothing", needed)));
  const Names needed_by_vqgan = {"train.run_folder=x", "train.steps=1", "data.train=x"};
  EXPECT_EQ(VqganTrainConfigToJson(
                ParseVqganTrainConfig(VqganTrainConfigTemplate(), "template", needed_by_vqgan)),
            VqganTrainConfigToJson(ParseVqganTrainConfig("", "nothing", needed_by_vqgan)));
}

TEST(RecipeTest, TablesOfATemplateReadBackWhenUncommented) {
  const std::string text = WithoutComment(TrainConfigTemplate(), "# [[data.source]]");
  const TrainConfig config =
      ParseTrainConfig(text, "template",
                       {"train.run_folder=x", "train.steps=1", "train.rows_per_step=1",
                        "data.train_tokenizer_vocab=300", R"(data.source=[{paths = ["a"]}])"});
  EXPECT_EQ(config.data.source.size(), 1u);
  const TomlDocument document = ParseToml(text, "template");
  EXPECT_EQ(document.values["data"]["source"].size(), 1u);
  EXPECT_EQ(document.values["data"]["source"][0], Json(SourceTable()));
}

TEST(RecipeTest, EveryKeyOfATemplateHasAComment) {
  for (const std::string& text : {TrainConfigTemplate(), VqganTrainConfigTemplate()}) {
    std::string before;
    for (size_t at = 0, end; (end = text.find('\n', at)) != std::string::npos; at = end + 1) {
      const std::string line = text.substr(at, end - at);
      if (line.find(" = ") != std::string::npos && line[0] != '#') {
        EXPECT_TRUE(before.starts_with("# ")) << line;
      }
      before = line;
    }
  }
}

TEST(RecipeTest, AKeyInTheWrongSectionIsToldTheRightOne) {
  try {
    ParseTrainConfig("[train]\nlr = 1\n", "r.toml", {});
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
    EXPECT_STREQ(error.what(),
                 "r.toml:2: unknown key in [train]: 'lr'; did you mean optimizer.lr?");
  }
}

}  // namespace
}  // namespace lwm::config
