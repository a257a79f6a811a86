#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "lwm/config/vqgan_train_config.h"
#include "lwm/dist/communicator.h"
#include "lwm/run/schedule.h"
#include "lwm/vision/vqgan.h"
#include "lwm/vision_train/adversary.h"
#include "lwm/vision_train/codebook.h"
#include "lwm/vision_train/flat_parameters.h"
#include "lwm/vision_train/perceptual.h"

namespace lwm::vision_train {

// Losses and counts of one step, over the global batch.
struct StepOutcome {
  double loss = 0, l1 = 0, mse = 0, commitment = 0, perceptual = 0;
  double adversarial = 0, discriminator = 0;
  double lr = 0, grad_norm = 0;
  double codes_used = 0;  // share of the codes that this batch used
  int64_t revived = 0;
};

// A VQGAN in training: weights, codebook, optimiser, average of the weights, discriminator. Every
// rank holds all of it, the same to the last bit; a step divides the images of a batch among
// ranks and sums gradients and latents over them. For one batch the result does not depend on the
// number of ranks, to f32 rounding.
class Learner {
 public:
  Learner(const config::VqganTrainConfig& config, dist::Communicator& world);
  Learner(const Learner&) = delete;
  Learner& operator=(const Learner&) = delete;

  // Step `step` (from 0) on this rank's images, [first, first + N) of `batch`. Collective.
  // Throws Error(kInternal) when training diverged.
  StepOutcome Step(int64_t step, const at::Tensor& images_NHWC, int64_t first, int64_t batch);

  // Averaged weights with the current codebook, for measuring and export. A copy, f32.
  vision::VqganWeights Averaged();

  // All tensors that a resumed run needs, by name, in a fixed order. Live.
  std::vector<std::pair<std::string, at::Tensor>> State();
  // Throws Error(kCorruptData) naming `where` and the tensor that is missing or misshapen.
  void LoadState(const std::map<std::string, at::Tensor>& tensors, int64_t steps_done,
                 const std::string& where);

  const config::VqganConfig& sizes() const { return config_.model.sizes; }

 private:
  // Latents of the whole batch in the order of its images, and their codes (0 in the warm-up).
  struct Batch {
    at::Tensor z_RC, code_R;
  };
  Batch GatherLatents(const Pass& pass, int64_t first, int64_t batch);
  RunningAverage AverageAfter(int64_t step) const;

  config::VqganTrainConfig config_;
  dist::Communicator& world_;
  at::ScalarType dtype_;
  run::Schedule schedule_;
  vision::VqganWeights weights_;  // leaves
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<FlatAdamW> optimizer_;
  at::Tensor average_n_;
  std::unique_ptr<Codebook> codebook_;
  std::unique_ptr<Adversary> adversary_;
  std::optional<FeatureNet> features_;
  PerceptualTerm perceptual_;
};

}  // namespace lwm::vision_train
