#include "lwm/config/unsupported_settings.h"

#include <algorithm>
#include <cmath>
#include <string_view>

#include "lwm/base/error.h"

namespace lwm::config {
namespace {

// A key and the values with which it changes nothing. null and absent always are such.
struct Setting {
  const char* key;
  Json neutral;  // a list: any of its entries
};

bool IsSame(const Json& value, const Json& neutral) {
  constexpr double kRounding = 1e-6;  // configs state 1 / sqrt(head_dim) in f32
  if (!value.is_number() || !neutral.is_number()) return value == neutral;
  const double wanted = neutral.get<double>();
  return std::fabs(value.get<double>() - wanted) <= kRounding * std::fabs(wanted);
}

bool IsNeutral(const Json& value, const Json& neutral) {
  if (value.is_null()) return true;
  if (!neutral.is_array()) return IsSame(value, neutral);
  return std::any_of(neutral.begin(), neutral.end(),
                     [&](const Json& entry) { return IsSame(value, entry); });
}

[[noreturn]] void Refuse(const std::string& where, const std::string& key, const Json& value,
                         const Json& neutral) {
  const Json wanted = neutral.is_array() && !neutral.empty() ? neutral[0] : neutral;
  ThrowJsonField(where, key,
                 Cat("is ", value.dump().substr(0, 60),
                     ": that changes the model's arithmetic and is not supported; only ",
                     wanted.dump(), " runs"));
}

std::vector<Setting> SettingsOf(const ModelConfig& config) {
  const auto head_dim = static_cast<double>(config.head_dim);
  const Json act = {"silu", "swish"}, rotary = {"rope", "rotary"}, none = {0, 1};
  return {
      // feed-forward
      {"hidden_act", act},
      {"hidden_activation", act},
      {"activation_function", act},
      {"mlp_bias", false},
      {"use_mlp_bias", false},
      {"num_local_experts", none},
      {"num_experts", none},
      {"n_routed_experts", none},
      {"num_experts_per_tok", none},
      // attention
      {"attention_bias", false},
      {"attention_in_bias", false},
      {"attention_out_bias", false},
      {"attn_bias", false},
      {"qkv_bias", false},
      {"use_qkv_bias", false},
      {"bias", false},
      {"use_bias", false},
      {"lm_head_bias", false},
      {"qk_norm", false},
      {"use_qk_norm", false},
      {"qk_layernorm", false},
      {"clip_qkv", Json()},
      {"alibi", false},
      {"attn_logit_softcapping", 0},
      {"attention_multiplier", 1 / std::sqrt(head_dim)},
      {"query_pre_attn_scalar", config.head_dim},
      {"attention_chunk_size", Json()},
      {"cross_attention_layers", Json::array({Json::array()})},
      {"add_cross_attention", false},
      {"is_encoder_decoder", false},
      // positions
      {"position_embedding_type", rotary},
      {"partial_rotary_factor", 1},
      {"rotary_pct", 1},
      {"rotary_percent", 1},
      {"rotary_dim", config.head_dim},
      {"rope_interleaved", false},
      {"no_rope_layer_interval", 0},
      // layers
      {"parallel_attn", false},
      {"parallel_residual", false},
      {"use_parallel_residual", false},
      {"scale_emb", 1},
      {"scale_depth", std::sqrt(static_cast<double>(config.num_hidden_layers))},
      {"dim_model_base", config.hidden_size},
      {"post_norm", false},
      {"sandwich_norm", false},
      // head
      {"final_logit_softcapping", 0},
      {"logits_soft_cap", 0},
      {"logit_scale", 1},
      {"logits_scaling", 1},
  };
}

// Any key "..._multiplier" that is not in the table scales an intermediate result.
void RefuseMultipliers(const Json& json, const std::vector<Setting>& known,
                       const std::string& where) {
  constexpr std::string_view kEnd = "_multiplier", kEnds = "_multipliers";
  for (const auto& [key, value] : json.items()) {
    const bool is_known = std::any_of(
        known.begin(), known.end(), [&, &name = key](const auto& one) { return one.key == name; });
    if (is_known || !(key.ends_with(kEnd) || key.ends_with(kEnds))) continue;
    const bool is_list_of_ones =
        value.is_array() && std::all_of(value.begin(), value.end(),
                                        [](const Json& entry) { return IsNeutral(entry, 1); });
    if (!is_list_of_ones && !IsNeutral(value, 1)) Refuse(where, key, value, 1);
  }
}

// A window as long as the context hides nothing.
void RefuseSlidingWindow(const Json& json, const ModelConfig& config, const std::string& where) {
  const Json window = json.value("sliding_window", Json());
  if (window.is_null() || json.value("use_sliding_window", Json()) == false) return;
  const bool hides = !window.is_number() ||
                     window.get<double>() < static_cast<double>(config.max_position_embeddings);
  if (hides && window != false && window != 0) Refuse(where, "sliding_window", window, Json());
}

// Per layer: the kind of attention, and whether its heads are rotated.
void RefuseLayerLists(const Json& json, const std::string& where) {
  const std::pair<const char*, Json> lists[] = {
      {"layer_types", {"full_attention"}}, {"no_rope_layers", {1, true}}, {"block_types", Json()}};
  for (const auto& [key, wanted] : lists) {
    const Json list = json.value(key, Json());
    if (list.is_null()) continue;
    const bool is_plain = list.is_array() && std::all_of(list.begin(), list.end(),
                                                         [&, &neutral = wanted](const Json& entry) {
                                                           return IsNeutral(entry, neutral);
                                                         });
    if (!is_plain) Refuse(where, key, list, wanted);
  }
}

}  // namespace

void RefuseUnsupportedSettings(const Json& json, const ModelConfig& config,
                               const std::string& where) {
  const std::vector<Setting> settings = SettingsOf(config);
  for (const auto& [key, neutral] : settings)
    if (json.contains(key) && !IsNeutral(json.at(key), neutral))
      Refuse(where, key, json.at(key), neutral);
  RefuseMultipliers(json, settings, where);
  RefuseSlidingWindow(json, config, where);
  RefuseLayerLists(json, where);
}

void RefuseUnknownRopeSettings(const Json& rope, const std::string& where) {
  constexpr std::string_view kUnderstood[] = {"rope_type",
                                              "type",
                                              "rope_theta",
                                              "factor",
                                              "original_max_position_embeddings",
                                              "attention_factor",
                                              "beta_fast",
                                              "beta_slow",
                                              "mscale",
                                              "mscale_all_dim",
                                              "low_freq_factor",
                                              "high_freq_factor",
                                              "truncate",
                                              "partial_rotary_factor",
                                              "finetuned"};  // how it was made
  for (const auto& [key, value] : rope.items()) {
    const bool is_known =
        std::find(std::begin(kUnderstood), std::end(kUnderstood), key) != std::end(kUnderstood);
    if (!is_known && !value.is_null()) Refuse(where, key, value, Json());
  }
}

}  // namespace lwm::config
