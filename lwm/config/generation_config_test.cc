#include "lwm/config/generation_config.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::config {
namespace {

using testing_support::TemporaryFolder;

ModelConfig WithGeneration(const std::string& text) {
  const TemporaryFolder folder;
  WriteFileAtomically(folder / "generation_config.json", text);
  ModelConfig config;
  AddGenerationEos(folder.path(), config);
  return config;
}

TEST(GenerationConfigTest, EveryIdOfBothFilesEndsAText) {
  const ModelConfig config = WithGeneration(R"({"eos_token_id": [2, 7, 9, 7]})");
  EXPECT_EQ(config.eos_token_id, 2);
  EXPECT_EQ(config.more_eos_token_ids, (std::vector<int64_t>{7, 9}));
  EXPECT_TRUE(WithGeneration(R"({"eos_token_id": 5})").EndsText(5));
  EXPECT_TRUE(WithGeneration(R"({"eos_token_id": 5})").EndsText(2));
  EXPECT_TRUE(WithGeneration(R"({"eos_token_id": null})").more_eos_token_ids.empty());
  ModelConfig without;
  AddGenerationEos("no such folder", without);
  EXPECT_TRUE(without.more_eos_token_ids.empty());
}

TEST(GenerationConfigTest, WhatIsWrittenNamesThemAll) {
  const ModelConfig two = WithGeneration(R"({"eos_token_id": [7]})");
  EXPECT_EQ(Json::parse(WithEosOf(two, R"({"top_k": 5})")),
            Json::parse(R"({"eos_token_id": [2, 7], "top_k": 5})"));
  EXPECT_EQ(Json::parse(WithEosOf(ModelConfig(), "{}"))["eos_token_id"], 2);
  EXPECT_EQ(WithEosOf(two, R"({"eos_token_id":[2,7]})"), R"({"eos_token_id":[2,7]})");
  EXPECT_ERROR(WithEosOf(two, "[]"), kCorruptData);
}

TEST(GenerationConfigTest, DamagedIdsAreRefusedByName) {
  for (const char* text : {R"({"eos_token_id": "</s>"})", R"({"eos_token_id": [2, null]})", "[]"}) {
    try {
      WithGeneration(text);
      ADD_FAILURE() << text;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_NE(std::string(error.what()).find("generation_config.json"), std::string::npos);
    }
  }
}

TEST(GenerationConfigTest, SettingsThatAreNotFollowedAreNamed) {
  EXPECT_EQ(SettingsNotFollowed(Json::parse(
                R"({"num_beams": 4, "repetition_penalty": 1.1, "temperature": 0.6,
                    "stop_strings": ["x"], "suppress_tokens": [], "min_length": 0})")),
            (std::vector<std::string>{"num_beams 4", "stop_strings [\"x\"]"}));
}

}  // namespace
}  // namespace lwm::config
