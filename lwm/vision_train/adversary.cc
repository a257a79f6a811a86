#include "lwm/vision_train/adversary.h"

#include <ATen/ATen.h>

#include "lwm/vision_train/perceptual.h"

namespace lwm::vision_train {

Adversary::Adversary(const config::VqganLossSection& loss,
                     const config::VqganOptimizerSection& optimizer, uint64_t seed)
    : discriminator_({.channels = loss.discriminator_channels,
                      .levels = loss.discriminator_layers,
                      .norm_groups = loss.discriminator_channels % 8 == 0 ? 8 : 1},
                     seed),
      schedule_{.start_step = loss.adversarial_start,
                .factor = loss.adversarial,
                .maximum = loss.adversarial_limit},
      lr_(loss.discriminator_lr),
      clip_norm_(optimizer.clip_norm),
      parameters_(std::make_unique<FlatParameters>(discriminator_.weights())),
      optimizer_(std::make_unique<FlatAdamW>(*parameters_, AdamWSettings{.beta1 = optimizer.beta1,
                                                                         .beta2 = optimizer.beta2,
                                                                         .eps = optimizer.eps})) {}

at::Tensor Adversary::GeneratorTerm(int64_t step, const Pass& pass, const at::Tensor& last_weight,
                                    double share, dist::Communicator& world) {
  discriminator_.RequireGradients(false);
  // The discriminator is fixed here: backward passes through it and leaves nothing at its weights.
  const at::Tensor term = GeneratorHingeLoss(discriminator_.Logits(pass.output_NHWC));
  const at::Tensor gradients =
      at::stack({GradientOf(pass.reconstruction, last_weight), GradientOf(term, last_weight)})
          .to(at::kFloat) *
      share;
  discriminator_.RequireGradients(true);
  world.AllReduceSum(
      std::span(gradients.data_ptr<float>(), static_cast<size_t>(gradients.numel())));
  // Gradients were summed, not norms: the weight is that of the global batch on any number of
  // ranks.
  return term * schedule_.Weight(step, gradients[0].norm().item<double>(),
                                 gradients[1].norm().item<double>());
}

double Adversary::Learn(const at::Tensor& images_NHWC, const at::Tensor& output_NHWC, double share,
                        dist::Communicator& world) {
  const at::Tensor loss = DiscriminatorHingeLoss(discriminator_.Logits(images_NHWC),
                                                 discriminator_.Logits(output_NHWC.detach())) *
                          share;
  loss.backward();
  parameters_->TakeGradients();
  SumGradients(world, *parameters_);
  optimizer_->Step(lr_, ClipTo(clip_norm_, *parameters_).factor);
  return loss.item<double>();
}

at::Tensor Adversary::FeatureDistance(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
  discriminator_.RequireGradients(false);
  const at::Tensor distance_N =
      PerceptualDistance(discriminator_.Features(a_NHWC), discriminator_.Features(b_NHWC));
  discriminator_.RequireGradients(true);
  return distance_N;
}

}  // namespace lwm::vision_train
