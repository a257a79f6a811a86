#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

namespace lwm::vision_train {

struct DiscriminatorConfig {
  int64_t channels = 64;    // of the first convolution; doubled by each further one, at most x 8
  int64_t levels = 2;       // convolutions of stride 2
  int64_t norm_groups = 8;  // must divide `channels`
};

// Tells images from reconstructions patch by patch (PatchGAN, Isola et al. 2017): `levels` 4x4
// convolutions of stride 2, one of stride 1, leaky ReLUs of slope 0.2, then one to a single logit a
// patch. Between the first and the last, group norm (eps 1e-6) in place of batch norm: a batch
// split over ranks gives the same gradients as a whole one.
class PatchDiscriminator {
 public:
  using NamedWeight = std::pair<std::string, at::Tensor>;

  // Weights normal(0, 0.02), norms 1 and 0, a pure function of the seed; `dtype` f32 or f64 (for
  // references). They are leaves that require gradients.
  // Throws Error(kInvalidArgument) naming the config's fault.
  PatchDiscriminator(const DiscriminatorConfig& config, uint64_t seed,
                     at::ScalarType dtype = at::kFloat);

  // Images [N,H,W,3] in [-1,1] to logits [N,h,w], h = floor(H / 2^levels) - 2 (each halving rounds
  // down), above 0 for patches judged original. Differentiable in images and weights.
  // Throws Error(kInvalidArgument) when an image is too small for one patch.
  at::Tensor Logits(const at::Tensor& images_NHWC) const;

  // The outputs of the leaky ReLUs, [N,C,h,w] from fine to coarse, for PerceptualDistance.
  std::vector<at::Tensor> Features(const at::Tensor& images_NHWC) const;

  // Every weight under a name fit for a checkpoint ("level.0.conv.weight"), always in this order.
  // The tensors are the live ones: an optimiser writes into them (without recording).
  const std::vector<NamedWeight>& weights() const { return weights_; }

  // Switches the recording of weight gradients off while the generator's loss is formed.
  void RequireGradients(bool wanted);

 private:
  struct Level {
    at::Tensor conv_OIHW, bias_O;
    at::Tensor scale_C, shift_C;  // undefined in the first level, which has no norm
    int64_t stride = 2;
  };
  at::Tensor& Register(const std::string& name, at::Tensor weight);

  DiscriminatorConfig config_;
  at::ScalarType dtype_;
  std::vector<Level> levels_;
  at::Tensor out_conv_1IHW_, out_bias_1_;
  std::vector<NamedWeight> weights_;
};

// Hinge losses, means over all patches.
// The discriminator's: (mean max(0, 1 - real) + mean max(0, 1 + fake)) / 2; `fake` is of
// reconstructions cut from the generator's graph (detach()).
at::Tensor DiscriminatorHingeLoss(const at::Tensor& real_logits, const at::Tensor& fake_logits);
// The generator's: -mean fake.
at::Tensor GeneratorHingeLoss(const at::Tensor& fake_logits);

// The gradient of `loss` with respect to one weight, contiguous; the graph is kept for the backward
// pass that follows. Zeros when the loss does not depend on it.
at::Tensor GradientOf(const at::Tensor& loss, const at::Tensor& weight);

// The weight of the adversarial term (Esser et al. 2021, section 3.1): 0 before step `start_step`,
// from then factor * |grad reconstruction| / (|grad adversarial| + 1e-4), the quotient at most
// `maximum`, gradients with respect to the decoder's last convolution. With many ranks these
// are of the sum of all ranks' gradients. Not finite norms give 0.
struct AdversarialSchedule {
  int64_t start_step = 0;
  double factor = 0.8;
  double maximum = 1e4;
  bool IsOn(int64_t step) const { return factor > 0 && step >= start_step; }
  double Weight(int64_t step, double reconstruction_norm, double adversarial_norm) const;
};

}  // namespace lwm::vision_train
