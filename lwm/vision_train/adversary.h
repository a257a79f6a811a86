#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>

#include "lwm/config/vqgan_train_config.h"
#include "lwm/dist/communicator.h"
#include "lwm/vision_train/discriminator.h"
#include "lwm/vision_train/flat_parameters.h"
#include "lwm/vision_train/objective.h"

namespace lwm::vision_train {

// The patch discriminator of a run with its optimiser, and the term it adds to the loss. The same
// on every rank.
class Adversary {
 public:
  Adversary(const config::VqganLossSection& loss, const config::VqganOptimizerSection& optimizer,
            uint64_t seed);

  bool IsOn(int64_t step) const { return schedule_.IsOn(step); }

  // The weighted adversarial term of the generator, mean over the images of this rank, a part
  // `share` of the global batch. `last_weight` is the decoder's last convolution, as the leaf.
  // Gradients reach the generator only. Collective.
  at::Tensor GeneratorTerm(int64_t step, const Pass& pass, const at::Tensor& last_weight,
                           double share, dist::Communicator& world);

  // One step of the discriminator on originals and (cut) reconstructions; returns this rank's loss
  // times `share`. Collective.
  double Learn(const at::Tensor& images_NHWC, const at::Tensor& output_NHWC, double share,
               dist::Communicator& world);

  // Distance of the discriminator's features, whose weights take no gradients from it.
  at::Tensor FeatureDistance(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC);

  FlatParameters& parameters() { return *parameters_; }
  FlatAdamW& optimizer() { return *optimizer_; }

 private:
  PatchDiscriminator discriminator_;
  AdversarialSchedule schedule_;
  double lr_, clip_norm_;
  std::unique_ptr<FlatParameters> parameters_;
  std::unique_ptr<FlatAdamW> optimizer_;
};

}  // namespace lwm::vision_train
