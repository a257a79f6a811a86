#include "lwm/config/model_config.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::config {
namespace {

using Type = RopeScaling::Type;

Json SmallConfig() {
  return ParseJson(R"({"model_type": "llama", "architectures": ["LlamaForCausalLM"],
    "vocab_size": 128, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2,
    "num_attention_heads": 2, "max_position_embeddings": 256, "rope_theta": 10000.0})",
                   "small");
}

ModelConfig ParseWith(const char* patch) {
  Json json = SmallConfig();
  json.merge_patch(ParseJson(patch, "patch"));
  return ParseModelConfig(json, "test.json");
}

TEST(ModelConfigTest, OldFormIsRead) {
  const ModelConfig config = ParseWith(R"({"num_key_value_heads": 1, "rope_theta": 25000000.0,
      "rope_scaling": null, "torch_dtype": "bfloat16", "tie_word_embeddings": true,
      "rms_norm_eps": 1e-05, "head_dim": 24, "bos_token_id": 5, "eos_token_id": [7, 8]})");
  EXPECT_EQ(config.vocab_size, 128);
  EXPECT_EQ(config.hidden_size, 64);
  EXPECT_EQ(config.intermediate_size, 96);
  EXPECT_EQ(config.num_hidden_layers, 2);
  EXPECT_EQ(config.num_attention_heads, 2);
  EXPECT_EQ(config.num_key_value_heads, 1);
  EXPECT_EQ(config.head_dim, 24);
  EXPECT_EQ(config.max_position_embeddings, 256);
  EXPECT_EQ(config.rms_norm_eps, 1e-5);
  EXPECT_EQ(config.rope_theta, 25e6);
  EXPECT_TRUE(config.tie_word_embeddings);
  EXPECT_EQ(config.bos_token_id, 5);
  EXPECT_EQ(config.eos_token_id, 7);
  EXPECT_TRUE(config.EndsText(7) && config.EndsText(8));
  EXPECT_FALSE(config.EndsText(5) || config.EndsText(-1));
  EXPECT_EQ(config.rope_scaling.type, Type::kDefault);
  EXPECT_FALSE(config.has_vision());
}

TEST(ModelConfigTest, RopeParametersWinOverTheTopLevel) {
  const ModelConfig config = ParseWith(
      R"({"rope_parameters": {"rope_type": "linear", "factor": 4, "rope_theta": 500000}})");
  EXPECT_EQ(config.rope_theta, 500000);
  EXPECT_EQ(config.rope_scaling.type, Type::kLinear);
  EXPECT_EQ(config.rope_scaling.factor, 4);
}

TEST(ModelConfigTest, AbsentHeadCountsAreHuggingFaceDefaults) {
  const ModelConfig config = ParseWith("{}");
  EXPECT_EQ(config.num_key_value_heads, 2);
  EXPECT_EQ(config.head_dim, 32);
  EXPECT_EQ(config.rms_norm_eps, 1e-6);
  EXPECT_FALSE(config.tie_word_embeddings);
}

TEST(ModelConfigTest, ParameterCountIsThePublishedOne) {
  ModelConfig config = ParseWith(R"({"vocab_size": 32000, "hidden_size": 4096,
      "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32})");
  EXPECT_EQ(config.ParameterCount(), 6738415616);  // LLaMA-2 7B
  config.vision_vocab_size = 8448;
  EXPECT_EQ(config.ParameterCount(), 6807621632);  // the large world model 7B
  config.tie_word_embeddings = true;
  EXPECT_EQ(config.ParameterCount(), 6807621632 - 32000 * 4096);
}

struct BadConfig {
  const char* patch;
  const char* named;  // must be in the message
};

TEST(ModelConfigTest, MalformedConfigsAreRefusedByField) {
  const BadConfig cases[] = {
      {R"({"vocab_size": null})", "\"vocab_size\" is missing"},
      {R"({"hidden_size": "64"})", "\"hidden_size\" must be an integer"},
      {R"({"hidden_size": 64.5})", "\"hidden_size\" must be an integer"},
      {R"({"hidden_size": true})", "\"hidden_size\" must be an integer"},
      {R"({"hidden_size": 18446744073709551615})", "\"hidden_size\" must be an integer"},
      {R"({"intermediate_size": 0})", "intermediate_size must be from 1"},
      {R"({"intermediate_size": null})", "\"intermediate_size\" is missing"},
      {R"({"num_hidden_layers": -1})", "num_hidden_layers must be from 1"},
      {R"({"num_attention_heads": 0})", "\"num_attention_heads\" must be at least 1"},
      {R"({"num_attention_heads": 3})", "hidden_size 64 is not a multiple"},
      {R"({"num_attention_heads": 4, "num_key_value_heads": 3})",
       "multiple of num_key_value_heads"},
      {R"({"num_key_value_heads": 4})", "num_key_value_heads must be from 1 to 2"},
      {R"({"head_dim": 7})", "head_dim must be even"},
      {R"({"head_dim": 0})", "head_dim must be from 2"},
      {R"({"max_position_embeddings": null})", "\"max_position_embeddings\" is missing"},
      {R"({"max_position_embeddings": 3000000000})", "max_position_embeddings must be from 1"},
      {R"({"rms_norm_eps": 0})", "rms_norm_eps must be"},
      {R"({"rms_norm_eps": "1e-6"})", "\"rms_norm_eps\" must be a number"},
      {R"({"rope_theta": 1})", "rope_theta must be"},
      {R"({"rope_theta": -1e4})", "rope_theta must be"},
      {R"({"attention_bias": true})", "\"attention_bias\" is true"},
      {R"({"mlp_bias": true})", "\"mlp_bias\" is true"},
      {R"({"hidden_act": "gelu"})", "\"hidden_act\" is \"gelu\""},
      {R"({"tie_word_embeddings": 1})", "\"tie_word_embeddings\" must be true or false"},
      {R"({"model_type": "mistral", "architectures": null})", "\"model_type\" is \"mistral\""},
      {R"({"model_type": null, "architectures": null})", "\"model_type\" is missing"},
      {R"({"architectures": ["MistralForCausalLM"]})", "\"architectures\" is"},
      {R"({"model_type": "lwm"})", "\"vision_vocab_size\" is missing"},
      {R"({"vision_vocab_size": 8448})", "needs \"model_type\": \"lwm\""},
      {R"({"bos_token_id": "<s>"})", "\"bos_token_id\" must be an integer"},
      {R"({"eos_token_id": []})", "\"eos_token_id\" must be an integer or a list"},
      {R"({"eos_token_id": [2, "</s>"]})", "\"eos_token_id\" must be an integer or a list"},
      {R"({"model_type": "lwm", "vision_vocab_size": 12, "codes_per_frame": -1})",
       "codes_per_frame must be from 0"},
      {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
      {R"({"rope_scaling": 2})", "\"rope_scaling\" must be an object"},
      {R"({"rope_scaling": {"type": "longrope", "factor": 2}})", "\"type\" is \"longrope\""},
      {R"({"rope_scaling": {"rope_type": "su"}})", "\"rope_type\" is \"su\""},
      {R"({"rope_scaling": {"type": "linear"}})", "rope_scaling: field \"factor\" is missing"},
      {R"({"rope_scaling": {"type": "linear", "factor": 0}})", "factor must be from 1"},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2}, "head_dim": 2})", "head_dim > 2"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "beta_slow": -1}})", "beta_slow"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "beta_fast": 0.5}})", "beta_fast"},
      {R"({"rope_scaling": {"type": "yarn", "factor": 2, "truncate": 1}})", "\"truncate\""},
      {R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1,
           "high_freq_factor": 4}})",
       "\"original_max_position_embeddings\" is missing"},
      {R"({"rope_parameters": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 4,
           "high_freq_factor": 4, "original_max_position_embeddings": 64}})",
       "high_freq_factor must be more"},
  };
  for (const BadConfig& bad : cases) {
    try {
      ParseWith(bad.patch);
      ADD_FAILURE() << "accepted " << bad.patch;
    } catch (const Error& error) {
      const std::string message = error.what();
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << message;
      EXPECT_EQ(message.find("test.json"), 0u) << message;
      EXPECT_NE(message.find(bad.named), std::string::npos) << bad.patch << " gave " << message;
      EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    }
  }
  EXPECT_ERROR(ParseModelConfig(Json::array(), "list"), kCorruptData);
}

TEST(ModelConfigTest, ValidateBlamesTheCaller) {
  ModelConfig config = ParseWith("{}");
  config.rope_theta = std::nan("");
  try {
    config.Validate();
    FAIL() << "NaN accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

TEST(ModelConfigTest, NullIsNoTokenAndAbsentIsTheUsualOne) {
  Json json = SmallConfig();
  EXPECT_EQ(ParseModelConfig(json, "test.json").bos_token_id, 1);
  json["bos_token_id"] = nullptr;
  const ModelConfig config = ParseModelConfig(json, "test.json");
  EXPECT_EQ(config.bos_token_id, -1);
  EXPECT_TRUE(ModelConfigToJson(config, "float32").at("bos_token_id").is_null());
}

TEST(ModelConfigTest, JsonRoundTripKeepsEveryField) {
  for (const char* patch :
       {R"({})", R"({"model_type": "lwm", "vision_vocab_size": 8448, "num_key_value_heads": 1})",
        R"({"model_type": "lwm", "vision_vocab_size": 12, "codes_per_frame": 16})",
        R"({"eos_token_id": [4, 9, 5]})",
        R"({"head_dim": 48, "tie_word_embeddings": true, "rms_norm_eps": 1e-5, "rope_theta": 5e7,
            "initializer_range": 0.01, "bos_token_id": 3, "eos_token_id": 4})",
        R"({"rope_scaling": {"type": "dynamic", "factor": 2.5}})",
        R"({"rope_scaling": {"type": "yarn", "factor": 8, "attention_factor": 1.1, "beta_fast": 16,
            "beta_slow": 2, "truncate": false, "original_max_position_embeddings": 32}})",
        R"({"rope_scaling": {"rope_type": "llama3", "factor": 8, "low_freq_factor": 1.5,
            "high_freq_factor": 5, "original_max_position_embeddings": 64}})"}) {
    const ModelConfig config = ParseWith(patch);
    const Json json = ModelConfigToJson(config, "bfloat16");
    EXPECT_EQ(json.at("dtype"), "bfloat16");
    EXPECT_TRUE(json.at("architectures").is_array());
    const Json again = ModelConfigToJson(ParseModelConfig(json, "again"), "bfloat16");
    EXPECT_EQ(json, again);
    Json old_form = json;  // as an older reader sees it
    old_form.erase("rope_parameters");
    EXPECT_EQ(ModelConfigToJson(ParseModelConfig(old_form, "old"), "bfloat16"), json);
    EXPECT_EQ(json.at("rope_theta"), config.rope_theta);
    EXPECT_EQ(json.contains("vision_vocab_size"), config.has_vision());
    const Json given = ParseJson(patch, "patch");
    for (const char* key : {"codes_per_frame", "eos_token_id"})
      if (given.contains(key)) {
        EXPECT_EQ(json.at(key), given.at(key)) << patch;
      }
  }
}

}  // namespace
}  // namespace lwm::config
