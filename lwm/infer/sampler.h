#pragma once

#include <cstdint>
#include <set>
#include <span>
#include <utility>
#include <vector>

#include "lwm/base/random.h"

namespace lwm::infer {

// How the next token is drawn. They apply in the order of the fields, as in Hugging Face.
struct SamplingOptions {
  double repetition_penalty = 1;  // of tokens seen before: divides logits > 0, multiplies others
  double temperature = 1;         // divides the logits; 0 = always the most likely token
  int64_t top_k = 0;              // only the k most likely tokens; 0 = all
  double top_p = 1;  // only the fewest most likely tokens that together have probability >= p

  // Throws Error(kInvalidArgument) naming the value and what is allowed.
  void Validate() const;
};

// Draws tokens from logits; the same seed and logits give the same tokens. Not for concurrent use.
class Sampler {
 public:
  Sampler(const SamplingOptions& options, uint64_t seed);

  // Marks a token as seen, for the repetition penalty: each of the prompt and each that was drawn.
  void See(int64_t index);

  // Index of the token. Equal logits: the lower index counts as more likely. -inf is never drawn.
  // Cost: O(V), with top_p also O(kept log V).
  // Throws Error(kCorruptData) when a logit is NaN or +inf or none is finite.
  int64_t Sample(std::span<const float> logits_V);

 private:
  using Candidate = std::pair<double, int64_t>;  // weight exp((logit - max) / temperature), index

  std::span<const float> Penalised(std::span<const float> logits_V);
  void KeepTopK();
  void KeepTopP();
  int64_t Draw();

  SamplingOptions options_;
  Random random_;
  std::set<int64_t> seen_;          // without a penalty: empty
  std::vector<float> penalised_V_;  // these two are kept between calls for their memory
  std::vector<Candidate> candidates_;
};

}  // namespace lwm::infer
