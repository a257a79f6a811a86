#include "lwm/config/unsupported_settings.h"

#include <gtest/gtest.h>

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::config {
namespace {

Json With(const char* patch) {
  Json json = {
      {"model_type", "llama"},         {"vocab_size", 128},      {"hidden_size", 64},
      {"intermediate_size", 96},       {"num_hidden_layers", 4}, {"num_attention_heads", 2},
      {"max_position_embeddings", 256}};
  json.merge_patch(ParseJson(patch, "patch"));
  return json;
}

TEST(UnsupportedSettingsTest, ArithmeticThatIsNotImplementedIsRefusedByName) {
  const std::pair<const char*, const char*> cases[] = {
      {R"({"hidden_act": "gelu_pytorch_tanh"})", "hidden_act"},
      {R"({"hidden_activation": "gelu"})", "hidden_activation"},
      {R"({"attention_bias": true})", "attention_bias"},
      {R"({"qkv_bias": true})", "qkv_bias"},
      {R"({"mlp_bias": true})", "mlp_bias"},
      {R"({"use_qk_norm": true})", "use_qk_norm"},
      {R"({"sliding_window": 128})", "sliding_window"},
      {R"({"sliding_window": 128, "use_sliding_window": true})", "sliding_window"},
      {R"({"layer_types": ["full_attention", "sliding_attention"]})", "layer_types"},
      {R"({"no_rope_layers": [1, 1, 1, 0]})", "no_rope_layers"},
      {R"({"partial_rotary_factor": 0.5})", "partial_rotary_factor"},
      {R"({"rotary_dim": 16})", "rotary_dim"},
      {R"({"attn_logit_softcapping": 50.0})", "attn_logit_softcapping"},
      {R"({"final_logit_softcapping": 30.0})", "final_logit_softcapping"},
      {R"({"embedding_multiplier": 12})", "embedding_multiplier"},
      {R"({"residual_multiplier": 0.22})", "residual_multiplier"},
      {R"({"attention_multiplier": 0.015625})", "attention_multiplier"},
      {R"({"mlp_multipliers": [0.8, 1]})", "mlp_multipliers"},
      {R"({"logits_scaling": 8})", "logits_scaling"},
      {R"({"logit_scale": 0.0625})", "logit_scale"},
      {R"({"scale_depth": 1.4})", "scale_depth"},
      {R"({"query_pre_attn_scalar": 256})", "query_pre_attn_scalar"},
      {R"({"num_local_experts": 8})", "num_local_experts"},
      {R"({"clip_qkv": 8})", "clip_qkv"},
      {R"({"position_embedding_type": "alibi"})", "position_embedding_type"},
      {R"({"use_parallel_residual": true})", "use_parallel_residual"},
      {R"({"rope_scaling": {"type": "dynamic", "factor": 2, "alpha": 1000}})", "alpha"},
      {R"({"rope_scaling": {"type": "default", "mrope_section": [4, 6, 6]}})", "mrope_section"},
      {R"({"rope_parameters": {"full_attention": {"rope_theta": 1e6}}})", "full_attention"},
  };
  for (const auto& [patch, key] : cases)
    testing_support::ExpectError([&] { ParseModelConfig(With(patch), "test.json"); },
                                 ErrorCode::kCorruptData,
                                 {"test.json: ", Cat("field \"", key, "\" is ")});
}

TEST(UnsupportedSettingsTest, NeutralValuesAreAccepted) {
  Json json = With(R"({"hidden_act": "swish", "attention_bias": false, "mlp_bias": null,
      "sliding_window": null, "layer_types": ["full_attention", "full_attention"],
      "no_rope_layers": [1, 1, 1, 1], "partial_rotary_factor": 1.0, "rotary_dim": 32,
      "attn_logit_softcapping": null, "final_logit_softcapping": 0.0, "embedding_multiplier": 1.0,
      "residual_multiplier": 1, "mlp_multipliers": [1.0, 1.0], "logits_scaling": 1.0,
      "scale_depth": 2.0, "query_pre_attn_scalar": 32, "num_local_experts": 0, "clip_qkv": null,
      "cross_attention_layers": [], "pretraining_tp": 1, "use_cache": true,
      "attention_dropout": 0.1, "_name_or_path": "some/model",
      "rope_scaling": {"type": "yarn", "factor": 2, "finetuned": true, "alpha": null}})");
  EXPECT_NO_THROW(ParseModelConfig(json, "test.json"));
  json["attention_multiplier"] = static_cast<float>(1 / std::sqrt(32.0));  // rounded to f32
  EXPECT_NO_THROW(ParseModelConfig(json, "test.json"));
}

TEST(UnsupportedSettingsTest, AWindowThatHidesNothingIsAccepted) {
  for (const char* patch :
       {R"({"sliding_window": 256})", R"({"sliding_window": 4096, "use_sliding_window": true})",
        R"({"sliding_window": 16, "use_sliding_window": false})"})
    EXPECT_NO_THROW(ParseModelConfig(With(patch), "test.json")) << patch;
}

}  // namespace
}  // namespace lwm::config
