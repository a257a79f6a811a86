#include "lwm/vision_train/discriminator.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>
#include <torch/csrc/autograd/autograd.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"
#include "lwm/vision/conv2d.h"

namespace lwm::vision_train {
namespace {

constexpr int64_t kKernel = 4;
constexpr double kSlope = 0.2;
constexpr double kNormEps = 1e-6;
constexpr double kWeightStd = 0.02;

void RequireConfig(const DiscriminatorConfig& config) {
  LWM_REQUIRE(config.channels >= 1 && config.channels <= 4096, "discriminator: ", config.channels,
              " channels; want 1 to 4096");
  LWM_REQUIRE(config.levels >= 1 && config.levels <= 8, "discriminator: ", config.levels,
              " levels; want 1 to 8");
  LWM_REQUIRE(config.norm_groups >= 1 && config.channels % config.norm_groups == 0,
              "discriminator: ", config.channels, " channels do not divide into ",
              config.norm_groups, " norm groups");
}

at::Tensor Conv(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
                int64_t stride) {
  return vision::Conv2d(x_NCHW, weight_OIHW, bias_O, stride, 1);
}

}  // namespace

PatchDiscriminator::PatchDiscriminator(const DiscriminatorConfig& config, uint64_t seed,
                                       at::ScalarType dtype)
    : config_(config), dtype_(dtype) {
  RequireConfig(config);
  at::Generator generator = at::detail::createCPUGenerator(seed);
  const auto convolution = [&](int64_t out, int64_t in) {
    return at::empty({out, in, kKernel, kKernel}).normal_(0, kWeightStd, generator);
  };
  int64_t in = 3;
  for (int64_t i = 0; i <= config.levels; ++i) {
    const int64_t out = config.channels << std::min<int64_t>(i, 3);
    const std::string name = Cat("level.", i);
    Level level;
    level.stride = i < config.levels ? 2 : 1;
    level.conv_OIHW = Register(name + ".conv.weight", convolution(out, in));
    level.bias_O = Register(name + ".conv.bias", at::zeros({out}));
    if (i > 0) {
      level.scale_C = Register(name + ".norm.weight", at::ones({out}));
      level.shift_C = Register(name + ".norm.bias", at::zeros({out}));
    }
    levels_.push_back(level);
    in = out;
  }
  out_conv_1IHW_ = Register("out.weight", convolution(1, in));
  out_bias_1_ = Register("out.bias", at::zeros({1}));
}

at::Tensor& PatchDiscriminator::Register(const std::string& name, at::Tensor weight) {
  weights_.emplace_back(name, weight.to(dtype_).requires_grad_(true));
  return weights_.back().second;
}

std::vector<at::Tensor> PatchDiscriminator::Features(const at::Tensor& images_NHWC) const {
  LWM_REQUIRE(images_NHWC.dim() == 4 && images_NHWC.size(3) == 3 && images_NHWC.size(0) > 0 &&
                  images_NHWC.is_floating_point(),
              "discriminator: want images [N,H,W,3] of a float type, got ", images_NHWC.sizes(),
              " ", images_NHWC.scalar_type());
  const int64_t smallest = int64_t{3} << config_.levels;
  LWM_REQUIRE(images_NHWC.size(1) >= smallest && images_NHWC.size(2) >= smallest,
              "discriminator: images of ", images_NHWC.size(2), " x ", images_NHWC.size(1),
              " pixels; ", config_.levels, " levels want at least ", smallest, " x ", smallest);
  std::vector<at::Tensor> features;
  at::Tensor x_NCHW = images_NHWC.to(dtype_).permute({0, 3, 1, 2}).contiguous();
  for (const Level& level : levels_) {
    x_NCHW = Conv(x_NCHW, level.conv_OIHW, level.bias_O, level.stride);
    if (level.scale_C.defined())
      x_NCHW = at::group_norm(x_NCHW, config_.norm_groups, level.scale_C, level.shift_C, kNormEps);
    x_NCHW = at::leaky_relu(x_NCHW, kSlope);
    features.push_back(x_NCHW);
  }
  return features;
}

at::Tensor PatchDiscriminator::Logits(const at::Tensor& images_NHWC) const {
  return Conv(Features(images_NHWC).back(), out_conv_1IHW_, out_bias_1_, 1).squeeze(1);
}

void PatchDiscriminator::RequireGradients(bool wanted) {
  for (auto& [name, weight] : weights_) weight.requires_grad_(wanted);
}

at::Tensor DiscriminatorHingeLoss(const at::Tensor& real_logits, const at::Tensor& fake_logits) {
  return (at::relu(1 - real_logits).mean() + at::relu(1 + fake_logits).mean()) / 2;
}

at::Tensor GeneratorHingeLoss(const at::Tensor& fake_logits) { return -fake_logits.mean(); }

at::Tensor GradientOf(const at::Tensor& loss, const at::Tensor& weight) {
  const auto gradient =
      torch::autograd::grad({loss}, {weight}, /*grad_outputs=*/{}, /*retain_graph=*/true,
                            /*create_graph=*/false, /*allow_unused=*/true);
  return gradient[0].defined() ? gradient[0].contiguous()
                               : at::zeros(weight.sizes(), weight.options());
}

double AdversarialSchedule::Weight(int64_t step, double reconstruction_norm,
                                   double adversarial_norm) const {
  if (!IsOn(step)) return 0;
  // Scales the adversarial gradient at the last layer to the size of the reconstruction's.
  const double quotient = reconstruction_norm / (adversarial_norm + 1e-4);
  return std::isfinite(quotient) ? factor * std::clamp(quotient, 0.0, maximum) : 0;
}

}  // namespace lwm::vision_train
