#include "lwm/vision_train/flat_parameters.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"
#include "lwm/ops/adamw.h"

namespace lwm::vision_train {
namespace {

// Elements of a flat tensor from `begin` on, as a weight; convolutions are laid out OHWI.
at::Tensor PartOf(const at::Tensor& flat_n, int64_t begin, at::IntArrayRef sizes) {
  const at::Tensor part_n = flat_n.narrow(0, begin, c10::multiply_integers(sizes));
  if (sizes.size() != 4) return part_n.view(sizes);
  return part_n.view({sizes[0], sizes[2], sizes[3], sizes[1]}).permute({0, 3, 1, 2});
}

}  // namespace

FlatParameters::FlatParameters(std::vector<NamedWeight> weights, at::ScalarType dtype,
                               const std::string& kept)
    : weights_(std::move(weights)) {
  LWM_CHECK(dtype == at::kFloat || dtype == at::kBFloat16, "weights in ", dtype);
  c10::NoGradGuard no_grad;
  // Weights that decay first: the update is then two runs, with and without decay.
  std::stable_partition(weights_.begin(), weights_.end(),
                        [](const NamedWeight& weight) { return weight.second.dim() >= 2; });
  int64_t count = 0;
  for (const auto& [name, weight] : weights_) {
    LWM_CHECK(weight.defined() && weight.scalar_type() == at::kFloat, "weight ", name);
    count += weight.numel();
    if (weight.dim() >= 2) num_decayed_ = count;
  }
  value_n_ = at::empty({count}, at::kFloat);
  gradient_n_ = at::zeros({count}, at::kFloat);
  working_n_ = dtype == at::kFloat ? value_n_ : at::empty({count}, dtype);
  const std::map<std::string, at::Tensor> values = Split(value_n_), leaves = Split(working_n_);
  for (auto& [name, weight] : weights_) {
    values.at(name).copy_(weight);
    // set_data keeps the tensor object, which the model holds too.
    weight.set_data((name == kept ? values : leaves).at(name));
    weight.set_requires_grad(true);
  }
  Refresh();
}

std::map<std::string, at::Tensor> FlatParameters::Split(const at::Tensor& flat_n) const {
  std::map<std::string, at::Tensor> parts;
  int64_t begin = 0;
  for (const auto& [name, weight] : weights_) {
    parts[name] = PartOf(flat_n, begin, weight.sizes());
    begin += weight.numel();
  }
  return parts;
}

void FlatParameters::TakeGradients() {
  c10::NoGradGuard no_grad;
  int64_t begin = 0;
  for (auto& [name, weight] : weights_) {
    const at::Tensor part = PartOf(gradient_n_, begin, weight.sizes());
    begin += weight.numel();
    if (weight.grad().defined()) {
      part.copy_(weight.grad());
    } else {
      part.zero_();
    }
    weight.mutable_grad() = at::Tensor();
  }
}

void FlatParameters::Refresh() {
  c10::NoGradGuard no_grad;
  if (!working_n_.is_same(value_n_)) working_n_.copy_(value_n_);
}

FlatAdamW::FlatAdamW(FlatParameters& parameters, const AdamWSettings& settings)
    : parameters_(parameters),
      settings_(settings),
      first_n_(at::zeros_like(parameters.value_n())),
      second_n_(at::zeros_like(parameters.value_n())) {}

void FlatAdamW::Step(double lr, double gradient_factor, const RunningAverage& average) {
  LWM_CHECK(std::isfinite(lr) && std::isfinite(gradient_factor) && gradient_factor > 0,
            "AdamW step with lr ", lr, " and gradient factor ", gradient_factor);
  ++steps_;
  const auto steps = static_cast<double>(steps_);
  kernels::AdamWStep step{.lr = lr,
                          .beta1 = settings_.beta1,
                          .beta2 = settings_.beta2,
                          .eps = settings_.eps,
                          .decay = settings_.weight_decay,
                          .correction1 = 1 - std::pow(settings_.beta1, steps),
                          .correction2 = 1 - std::pow(settings_.beta2, steps),
                          .gradient_factor = gradient_factor,
                          .average_share = average.share};
  const at::Tensor &value_n = parameters_.value_n(), &working_n = parameters_.working_n();
  const ops::AdamWTensors tensors{.gradient_n = parameters_.gradient_n(),
                                  .value_n = value_n,
                                  .first_n = first_n_,
                                  .second_n = second_n_,
                                  .average_n = average.average_n,
                                  .copy_n = working_n.is_same(value_n) ? at::Tensor() : working_n};
  ops::AdamW(step, tensors, 0, parameters_.num_decayed());
  step.decay = 0;
  ops::AdamW(step, tensors, parameters_.num_decayed(), value_n.numel());
}

Clip ClipTo(double clip, const FlatParameters& parameters) {
  c10::NoGradGuard no_grad;
  const double norm = parameters.gradient_n().norm().item<double>();
  LWM_REQUIRE_AS(ErrorCode::kInternal, std::isfinite(norm),
                 "the gradient is not finite: training diverged; lower optimizer.lr or raise "
                 "optimizer.warmup_steps, or try train.dtype = \"f32\"");
  return {norm, clip > 0 && norm > clip ? clip / norm : 1.0};
}

void SumGradients(dist::Communicator& world, const FlatParameters& parameters) {
  if (world.size() == 1) return;
  const at::Tensor& gradient_n = parameters.gradient_n();
  world.AllReduceSum(
      std::span(gradient_n.data_ptr<float>(), static_cast<size_t>(gradient_n.numel())));
}

}  // namespace lwm::vision_train
