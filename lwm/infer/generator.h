#pragma once

#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lwm/infer/decode_model.h"
#include "lwm/infer/sampler.h"

namespace lwm::infer {

struct GenerateOptions {
  int64_t max_new_tokens = 256;
  SamplingOptions sampling;
  uint64_t seed = 42;
  bool ignore_eos = false;  // go on after the end-of-text token
  int64_t vocabulary = 0;   // draw ids below this only (a table may be padded); 0 = all
};

struct GenerateResult {
  enum class Stop { kMaxNewTokens, kEndOfText, kContextFull };

  std::vector<int64_t> new_ids;  // the end-of-text token included
  Stop stop = Stop::kMaxNewTokens;
  int64_t prompt_tokens = 0;
  double prefill_seconds = 0;  // reading the prompt, first token's logits included
  double decode_seconds = 0;   // everything after; covers new_ids.size() - 1 tokens

  double PrefillTokensPerSecond() const;
  double DecodeTokensPerSecond() const;  // 0 with fewer than two new tokens
};

// Called with each new token at once; false ends the generation.
using OnToken = std::function<bool(int64_t id)>;

// Continues a text prompt token by token.
//   prompt_ids  in  at least one id; a BOS is the caller's business
// Throws Error(kResourceExhausted) naming both numbers when the prompt is longer than the context
// or when the keys and values of prompt and new tokens do not fit the memory that is left, before
// any work; Error(kInvalidArgument) on an empty prompt, an id out of range, bad options.
GenerateResult Generate(const DecodeModel& model, std::span<const int64_t> prompt_ids,
                        const GenerateOptions& options, const OnToken& on_token);

}  // namespace lwm::infer
