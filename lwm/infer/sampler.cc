#include "lwm/infer/sampler.h"

#include <algorithm>
#include <cmath>
#include <limits>

#include "lwm/base/error.h"

namespace lwm::infer {
namespace {

template <class Candidate>
bool MoreLikely(const Candidate& a, const Candidate& b) {
  return a.first != b.first ? a.first > b.first : a.second < b.second;
}

template <class Candidate>
bool LessLikely(const Candidate& a, const Candidate& b) {
  return MoreLikely(b, a);
}

// Index of the largest logit, the first of equal ones.
int64_t MostLikely(std::span<const float> logits_V) {
  LWM_CHECK(!logits_V.empty(), "no logits");
  int64_t best = 0;
  for (size_t v = 0; v < logits_V.size(); ++v) {
    LWM_REQUIRE_AS(
        ErrorCode::kCorruptData,
        !std::isnan(logits_V[v]) && logits_V[v] != std::numeric_limits<float>::infinity(),
        "the logit of token ", v, " is ", logits_V[v],
        ": the model's weights are damaged or its arithmetic overflowed; check the "
        "weights, or try --dtype f32");
    if (logits_V[v] > logits_V[static_cast<size_t>(best)]) best = static_cast<int64_t>(v);
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, std::isfinite(logits_V[static_cast<size_t>(best)]),
                 "no token has a finite logit");
  return best;
}

}  // namespace

void SamplingOptions::Validate() const {
  LWM_REQUIRE(std::isfinite(repetition_penalty) && repetition_penalty > 0, "repetition-penalty is ",
              repetition_penalty, ", want a number > 0 (1 = none)");
  LWM_REQUIRE(std::isfinite(temperature) && temperature >= 0, "temperature is ", temperature,
              ", want a number >= 0 (0 = greedy)");
  LWM_REQUIRE(top_k >= 0, "top-k is ", top_k, ", want >= 0 (0 = all tokens)");
  LWM_REQUIRE(top_p > 0 && top_p <= 1, "top-p is ", top_p, ", want 0 < p <= 1");
}

Sampler::Sampler(const SamplingOptions& options, uint64_t seed) : options_(options), random_(seed) {
  options.Validate();
}

void Sampler::See(int64_t index) {
  if (options_.repetition_penalty != 1) seen_.insert(index);
}

std::span<const float> Sampler::Penalised(std::span<const float> logits_V) {
  if (seen_.empty()) return logits_V;
  const auto penalty = static_cast<float>(options_.repetition_penalty);
  penalised_V_.assign(logits_V.begin(), logits_V.end());
  // Once per token, however often it was seen, as in Hugging Face.
  for (const int64_t index : seen_) {
    const auto v = static_cast<size_t>(index);
    if (v >= logits_V.size()) continue;  // read, and not to be drawn
    penalised_V_[v] = logits_V[v] < 0 ? logits_V[v] * penalty : logits_V[v] / penalty;
  }
  return penalised_V_;
}

int64_t Sampler::Sample(std::span<const float> unpenalised_V) {
  const std::span<const float> logits_V = Penalised(unpenalised_V);
  const int64_t best = MostLikely(logits_V);
  // Without a random number: greedy decoding needs none.
  if (options_.temperature == 0 || options_.top_k == 1) return best;
  const double max = logits_V[static_cast<size_t>(best)];
  // The filters in Hugging Face's order: penalty, temperature, top-k, top-p. Each sees only what
  // the one before kept: p is a share of the k likeliest. Relative to the largest logit, so that
  // exp does not overflow; weights that vanish (-inf too) drop out.
  candidates_.clear();
  for (size_t v = 0; v < logits_V.size(); ++v) {
    const double weight = std::exp((logits_V[v] - max) / options_.temperature);
    if (weight > 0) candidates_.emplace_back(weight, static_cast<int64_t>(v));
  }
  KeepTopK();
  KeepTopP();
  return Draw();
}

void Sampler::KeepTopK() {
  const auto k = static_cast<size_t>(options_.top_k);
  if (k == 0 || k >= candidates_.size()) return;
  // Only the set matters here, so no sort: O(V).
  std::nth_element(candidates_.begin(), candidates_.begin() + options_.top_k, candidates_.end(),
                   MoreLikely<Candidate>);
  candidates_.resize(k);
}

// The smallest set of likeliest tokens with total probability p; the token that crosses p belongs
// to it. A heap gives the likeliest first, so that a peaked distribution is not sorted whole.
void Sampler::KeepTopP() {
  if (options_.top_p >= 1) return;
  double total = 0, kept = 0;
  for (const Candidate& c : candidates_) total += c.first;
  std::make_heap(candidates_.begin(), candidates_.end(), LessLikely<Candidate>);
  auto end = candidates_.end();
  while (end != candidates_.begin() && kept < options_.top_p * total) {
    std::pop_heap(candidates_.begin(), end, LessLikely<Candidate>);
    kept += (--end)->first;
  }
  candidates_.erase(candidates_.begin(), end);
}

int64_t Sampler::Draw() {
  double total = 0;
  for (const Candidate& c : candidates_) total += c.first;
  double left = random_.Uniform() * total;
  for (const Candidate& c : candidates_) {
    left -= c.first;
    if (left < 0) return c.second;
  }
  return candidates_.back().second;  // rounding used up the sum
}

}  // namespace lwm::infer
