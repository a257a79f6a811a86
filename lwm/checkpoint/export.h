#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <map>
#include <string>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/io/gguf_blocks.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {

// Each format in a file of its own: SaveLwmCheckpoint in export_lwm.cc, SaveGguf in export_gguf.cc.

// Gives one weight of the model by its spec, in any float dtype.
using ReadWeight = std::function<at::Tensor(const model::TensorSpec&)>;

// Writes the published system's checkpoint: one stream of records with layers stacked, kernels
// [in, out], query and key rows as rotary pairs; keys in sorted order. A tied head is written too.
// `dtype` is f32, bf16 or f16. Memory: one weight.
// Throws Error(kInvalidArgument) when a stacked weight is beyond the format's 4 GiB.
void SaveLwmCheckpoint(const config::ModelConfig& config, const ReadWeight& read,
                       const std::filesystem::path& file, at::ScalarType dtype);

// The tokenizer inside a GGUF file: of SentencePiece pieces with scores, or byte-level BPE with
// merges.
struct GgufVocabulary {
  std::vector<std::string> tokens;
  std::vector<float> scores;        // empty with merges
  std::vector<std::string> merges;  // "left right", first = merged first
  std::string pre_tokenizer;        // with merges: tokenizer.ggml.pre, how texts become words
  std::vector<int32_t> types;  // 1 normal, 2 unknown, 3 control, 4 user-defined, 5 unused, 6 byte
  int64_t bos = 1, eos = 2, unknown = 0, padding = -1;  // -1 = none
  bool add_bos = true, add_eos = false, add_space_prefix = true;
  std::vector<int64_t> more_eos;                      // the other ids that end a text
  std::map<std::string, std::string> chat_templates;  // by name, "default" the one without
  std::map<std::string, std::string> files;  // JSON files that GGUF has no keys for: name -> text
};

// Keys of this program's own in GGUF: all ids that end a text, where they are more than three, and
// the prefix of `files`.
inline constexpr char kGgufEosIds[] = "lwm.eos_token_ids";
inline constexpr char kGgufFiles[] = "lwm.file.";

// Writes a GGUF file of architecture "llama": matrices in `type` (F32, F16, BF16, Q8_0 or Q4_0; in
// F16 where rows are no whole blocks), norms in F32. A tied head is left out. No tokens, no
// tokenizer keys. Memory: one weight in f32.
// Throws Error(kInvalidArgument) for a model with vision, for rotary scaling that GGUF does not
// state, and for weights that do not fit f16.
void SaveGguf(const config::ModelConfig& config, const ReadWeight& read,
              const std::filesystem::path& file, io::GgufType type, const std::string& name,
              const GgufVocabulary& vocabulary);

}  // namespace lwm::checkpoint
