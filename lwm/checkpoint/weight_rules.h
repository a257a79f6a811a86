#pragma once

#include <cstdint>
#include <string>
#include <unordered_map>

#include "lwm/config/model_config.h"
#include "lwm/io/tensor_source.h"

namespace lwm::checkpoint {

// How one weight of the model (Hugging Face name and layout) is stored in a source.
struct WeightRule {
  std::string source_name;
  int64_t layer = -1;      // >= 0: one layer of a tensor stacked over layers
  int layer_axis = 0;      // of a stacked tensor: 0, or 1
  bool transpose = false;  // stored [in, out]
  // > 0: rows are stored per head as rotary pairs (2i, 2i+1); the model wants (i, i + K/2).
  int64_t interleaved_heads = 0;
};

// Names of a weight in other formats: in LWM's stacked tree "transformer/h/scan_decoder/...", in
// GGUF "blk.3.ffn_up.weight". Throws Error(kInvalidArgument) when the format has no place for it.
std::string LwmNameOf(const std::string& weight);
std::string GgufNameOf(const std::string& weight);

// Heads of a query or key projection, whose rows rotary embedding pairs; 0 for other weights.
int64_t RotaryHeadsOf(const config::ModelConfig& config, const std::string& weight);

// By the weight's name in the model.
using WeightRules = std::unordered_map<std::string, WeightRule>;

// Recognises the naming (Hugging Face, LWM, GGUF, llama2.c) by the names themselves. Throws
// Error(kCorruptData) that names the first weight which is missing, or the first tensor which the
// config has no place for.
WeightRules MakeWeightRules(const config::ModelConfig& config, const io::TensorSource& source);

}  // namespace lwm::checkpoint
