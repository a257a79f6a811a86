#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/config/model_config.h"
#include "lwm/config/rope_frequencies.h"
#include "lwm/infer/kv/kv_cache.h"
#include "lwm/model/weights.h"

namespace lwm::infer {

// The vocabulary of the next token: text, or vision codes inside a frame.
enum class Head { kText, kVision };

// Tokens to read next, T in each of the B rows of a cache.
struct NewTokens {
  at::Tensor id_BT;      // i64
  at::Tensor vision_BT;  // bool, the token is a vision code; undefined = all text
};

// The decoder of model/decoder.h over a cache: the same sums, but only new tokens are computed and
// only the last one's logits. Weights are read, never changed.
class DecodeModel {
 public:
  DecodeModel(const config::ModelConfig& config, const model::WeightReader& weights)
      : config_(config), weights_(weights) {}

  const config::ModelConfig& config() const { return config_; }
  at::ScalarType dtype() const;

  // Appends T >= 1 tokens to each row and returns the logits of the last one, f32 [B,V] of `head`.
  // Tokens are read in chunks, which bounds memory and changes no result beyond rounding. Rotary
  // frequencies of dynamic scaling are those of the row's length after this call; keys that are in
  // the cache already keep theirs, as in Hugging Face's decoding.
  // Throws Error(kInvalidArgument) on an id out of range, Error(kResourceExhausted) beyond the
  // cache's capacity.
  at::Tensor Read(const NewTokens& tokens, Head head, KvCache& cache) const;

  // The two halves of Read, for rows whose next tokens come from different vocabularies: final
  // hidden states of the last token, [B,D] before the last norm, and logits f32 [R,V] of some rows
  // of them. Throw as Read does.
  at::Tensor ReadHidden(const NewTokens& tokens, KvCache& cache) const;
  at::Tensor Logits(const at::Tensor& x_RD, Head head) const;

 private:
  // Final hidden state of the chunk's last token of each row, [B,D], before the last norm.
  at::Tensor ReadChunk(const NewTokens& chunk, const config::RopeFrequencies& frequencies,
                       KvCache& cache) const;
  void Check(const NewTokens& tokens, const KvCache& cache) const;

  config::ModelConfig config_;
  const model::WeightReader& weights_;
};

// Tokens that one pass over the weights reads during prefill.
inline constexpr int64_t kPrefillChunkTokens = 512;

}  // namespace lwm::infer
