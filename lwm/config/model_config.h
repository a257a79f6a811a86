#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/json.h"

namespace lwm::config {

// How rotary frequencies are scaled, named as in Hugging Face's rope_parameters.
struct RopeScaling {
  enum class Type { kDefault, kLinear, kDynamic, kYarn, kLlama3 };
  Type type = Type::kDefault;
  double factor = 1;
  double original_max_position_embeddings = 0;       // 0 = max_position_embeddings
  double attention_factor = 0;                       // yarn; 0 = 0.1 ln(factor) + 1
  double beta_fast = 32, beta_slow = 1;              // yarn
  double low_freq_factor = 1, high_freq_factor = 4;  // llama3
  bool truncate = true;                              // yarn: round the ramp's limits
};

// Architecture of one decoder: LLaMA, with a vision table and head when vision_vocab_size > 0 (the
// large world model). Field names are Hugging Face's.
struct ModelConfig {
  int64_t vocab_size = 0;
  int64_t vision_vocab_size = 0;  // 0 = text only
  int64_t hidden_size = 0;
  int64_t intermediate_size = 0;
  int64_t num_hidden_layers = 0;
  int64_t num_attention_heads = 0;
  int64_t num_key_value_heads = 0;
  int64_t head_dim = 0;
  int64_t max_position_embeddings = 0;
  double rms_norm_eps = 1e-6;
  double rope_theta = 10000;
  RopeScaling rope_scaling;
  bool tie_word_embeddings = false;
  double initializer_range = 0.02;
  int64_t bos_token_id = 1;  // -1 = none; so for the next
  int64_t eos_token_id = 2;
  std::vector<int64_t> more_eos_token_ids;  // the others, when the config lists several
  // Vision codes of a frame that the model was trained on; 0 = not said: those of the VQGAN at its
  // own sample_size.
  int64_t codes_per_frame = 0;

  bool has_vision() const { return vision_vocab_size > 0; }
  // True of each end-of-text token.
  bool EndsText(int64_t token_id) const;
  // Weights, all of them counted once.
  int64_t ParameterCount() const;
  // Throws Error(kInvalidArgument) naming the field, its value and what is allowed.
  void Validate() const;
};

// config.json of a LlamaForCausalLM (old: rope_theta, rope_scaling, torch_dtype; new:
// rope_parameters, dtype) or of model_type "lwm". Absent head counts and head_dim get Hugging
// Face's defaults; a missing size is refused, never guessed; so is another architecture
// and a setting that changes the arithmetic and is not implemented (unsupported_settings.h). Throws
// Error(kCorruptData) naming `where` and the field.
ModelConfig ParseModelConfig(const Json& json, const std::string& where);
ModelConfig ReadModelConfig(const std::filesystem::path& file);

// The reverse, in the new form with rope_theta and rope_scaling repeated for older readers.
Json ModelConfigToJson(const ModelConfig& config, const std::string& dtype);

}  // namespace lwm::config
