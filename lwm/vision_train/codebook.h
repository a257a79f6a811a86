#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/config/vqgan_train_config.h"

namespace lwm::vision_train {

// A latent and the code put in its place, differentiable.
struct Quantised {
  at::Tensor latents_NhwC;  // values of the codes, gradient of the latents (straight-through)
  at::Tensor commitment;    // mean over elements of (latent - code)^2, gradient to the latents
  at::Tensor codebook;      // the same value, gradient to the codebook; undefined without "loss"
};

// `code_R` [N*h*w] are rows of codebook_VC. With `learn_codebook` the codebook gets a gradient.
Quantised StraightThrough(const at::Tensor& latents_NhwC, const at::Tensor& codebook_VC,
                          const at::Tensor& code_R, bool learn_codebook);

// k-means of latents x_RC into V rows, R >= V: starts from V different latents, moves each row to
// the mean of its latents `rounds` times; a row without any goes to the latent farthest from its
// own. A pure function of `random`. Cost: rounds * R * V * C.
at::Tensor KMeans(const at::Tensor& x_RC, int64_t rows, int64_t rounds, Random random);

// The codebook of a run: its start, how it follows the latents, how dead codes come back. All
// methods see the latents of the whole global batch in one order, so that every rank holds the same
// codebook. Writes into the codebook tensor it is given.
class Codebook {
 public:
  // `steps`: of the run; the options give the warm-up and the end of revival as shares of it.
  Codebook(const config::CodebookSection& options, int64_t steps, uint64_t seed,
           at::Tensor codebook_VC);

  // True while latents pass unquantised.
  bool IsWarmup(int64_t step) const { return step < warmup_steps_; }

  // After step `step` (from 0): in the warm-up keeps z_RC, and at its end runs k-means; later moves
  // the rows ("ema"), counts use, revives. Returns how many codes were revived.
  int64_t AfterStep(int64_t step, const at::Tensor& z_RC, const at::Tensor& code_R);

  // Everything apart from the codebook that the next step depends on, for a checkpoint.
  std::vector<std::pair<std::string, at::Tensor*>> State();

  const at::Tensor& codebook_VC() const { return codebook_VC_; }
  const at::Tensor& use_V() const { return use_V_; }  // running number of uses in a step

 private:
  void Follow(const at::Tensor& z_RC, const at::Tensor& code_R, const at::Tensor& new_count_V);
  int64_t Revive(int64_t step, const at::Tensor& z_RC);
  void KeepRecent(const at::Tensor& z_RC);
  void Start(const at::Tensor& codebook_VC);

  config::CodebookSection options_;
  int64_t warmup_steps_ = 0, last_revival_ = 0;
  uint64_t seed_;
  at::Tensor codebook_VC_;
  at::Tensor count_V_, sum_VC_;  // running number and sum of the latents of a code
  at::Tensor use_V_;
  at::Tensor recent_RC_;  // of the warm-up
};

// Codes used by at least one of code_R, and exp of the entropy of their frequencies.
struct CodeUse {
  double used_share = 0, perplexity = 0;
};
CodeUse MeasureUse(const at::Tensor& code_R, int64_t codes);

}  // namespace lwm::vision_train
