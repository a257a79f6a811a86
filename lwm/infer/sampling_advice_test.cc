#include "lwm/infer/sampling_advice.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::infer {
namespace {

class SamplingAdviceTest : public ::testing::Test {
 protected:
  ModelSamplingAdvice Read(const std::string& json) {
    WriteFileAtomically(folder_ / "generation_config.json", json);
    return ReadSamplingAdvice(folder_.path());
  }
  ErrorCode CodeOf(const std::string& json) {
    try {
      Read(json);
    } catch (const Error& error) {
      return error.code();
    }
    ADD_FAILURE() << json << " was accepted";
    return ErrorCode::kInternal;
  }

  testing_support::TemporaryFolder folder_;
};

TEST_F(SamplingAdviceTest, NoFileIsNoAdvice) {
  const ModelSamplingAdvice advice = ReadSamplingAdvice(folder_.path());
  EXPECT_FALSE(advice.text.temperature || advice.text.top_k || advice.text.top_p);
  EXPECT_FALSE(advice.vision.temperature || advice.vision.guidance_scale);
}

TEST_F(SamplingAdviceTest, TextAndVisionAreReadApart) {
  const auto advice = Read(
      R"({"temperature": 0.6, "top_p": 0.9, "repetition_penalty": 1.1, "eos_token_id": [1, 2],
          "vision_sampling": {"temperature": 0.5, "top_k": 100, "guidance_scale": 3}})");
  EXPECT_EQ(advice.text.temperature, 0.6);
  EXPECT_EQ(advice.text.top_p, 0.9);
  EXPECT_EQ(advice.text.repetition_penalty, 1.1);
  EXPECT_FALSE(advice.text.top_k || advice.vision.repetition_penalty);
  EXPECT_EQ(advice.vision.temperature, 0.5);
  EXPECT_EQ(advice.vision.top_k, 100);
  EXPECT_EQ(advice.vision.guidance_scale, 3);
}

TEST_F(SamplingAdviceTest, NotToSampleIsTemperatureZero) {
  EXPECT_EQ(Read(R"({"do_sample": false, "temperature": 0.6})").text.temperature, 0);
  EXPECT_EQ(Read(R"({"do_sample": true, "temperature": 0.6})").text.temperature, 0.6);
}

TEST_F(SamplingAdviceTest, WrongTypesAndValuesAreRefused) {
  for (const char* json :
       {R"({"temperature": "hot"})", R"({"temperature": -1})", R"({"top_p": 2})",
        R"({"top_k": -3})", R"({"repetition_penalty": 0})", R"({"repetition_penalty": "1"})",
        R"({"vision_sampling": 1})", R"({"vision_sampling": {"guidance_scale": -1}})", "[1]"})
    EXPECT_EQ(CodeOf(json), ErrorCode::kCorruptData) << json;
}

}  // namespace
}  // namespace lwm::infer
