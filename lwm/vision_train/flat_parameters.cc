#include "lwm/vision_train/flat_parameters.h"

#include <ATen/ATen.h>
#include <c10/core/GradMode.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"

namespace lwm::vision_train {

FlatParameters::FlatParameters(std::vector<NamedWeight> weights, at::ScalarType dtype,
                               const std::string& kept)
    : weights_(std::move(weights)) {
  c10::NoGradGuard no_grad;
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
    weight.set_data((name == kept ? values : leaves).at(name));
    weight.set_requires_grad(true);
  }
  Refresh();
}

std::map<std::string, at::Tensor> FlatParameters::Split(const at::Tensor& flat_n) const {
  std::map<std::string, at::Tensor> parts;
  int64_t begin = 0;
  for (const auto& [name, weight] : weights_) {
    parts[name] = flat_n.narrow(0, begin, weight.numel()).view(weight.sizes());
    begin += weight.numel();
  }
  return parts;
}

void FlatParameters::TakeGradients() {
  c10::NoGradGuard no_grad;
  int64_t begin = 0;
  for (auto& [name, weight] : weights_) {
    const at::Tensor part = gradient_n_.narrow(0, begin, weight.numel()).view(weight.sizes());
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

void FlatAdamW::Step(double lr, double gradient_factor) {
  LWM_CHECK(std::isfinite(lr) && std::isfinite(gradient_factor) && gradient_factor > 0,
            "AdamW step with lr ", lr, " and gradient factor ", gradient_factor);
  c10::NoGradGuard no_grad;
  ++steps_;
  const int64_t decayed = parameters_.num_decayed();
  Update(0, decayed, settings_.weight_decay, lr, gradient_factor);
  Update(decayed, parameters_.value_n().numel(), 0, lr, gradient_factor);
  parameters_.Refresh();
}

void FlatAdamW::Update(int64_t begin, int64_t end, double decay, double lr,
                       double gradient_factor) {
  if (begin == end) return;
  const auto cut = [&](const at::Tensor& n) { return n.narrow(0, begin, end - begin); };
  const at::Tensor steps = at::full({}, static_cast<double>(steps_), at::kFloat);
  const std::optional<at::Tensor> divisor =
      gradient_factor == 1 ? std::nullopt
                           : std::optional(at::full({}, 1 / gradient_factor, at::kFloat));
  at::_fused_adamw_({cut(parameters_.value_n())}, {cut(parameters_.gradient_n())}, {cut(first_n_)},
                    {cut(second_n_)}, {}, {steps}, lr, settings_.beta1, settings_.beta2, decay,
                    settings_.eps, /*amsgrad=*/false, /*maximize=*/false, divisor);
}

Clip ClipTo(double clip, const FlatParameters& parameters) {
  c10::NoGradGuard no_grad;
  const double norm = parameters.gradient_n().norm().item<double>();
  LWM_REQUIRE(std::isfinite(norm),
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
