#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <map>
#include <string>
#include <utility>
#include <vector>

#include "lwm/dist/communicator.h"

namespace lwm::vision_train {

using NamedWeight = std::pair<std::string, at::Tensor>;

// Weights of one model as one f32 buffer, and their gradients as another: the optimiser, clipping,
// averaging and the sum over ranks are one operation each. Convolutions (four dimensions, OIHW) lie
// in it in channels-last layout.
class FlatParameters {
 public:
  // Moves the f32 weights' values into the buffer; the tensors stay the same objects, now leaves
  // that require gradients: views of it, or, when `dtype` is bf16, views of a copy in that. One
  // by the name of `kept` stays f32. Weights of two or more dimensions come first: these decay.
  explicit FlatParameters(std::vector<NamedWeight> weights, at::ScalarType dtype = at::kFloat,
                          const std::string& kept = "");

  // Moves the gradients that a backward pass left at the leaves into gradient_n; zero where none.
  void TakeGradients();
  // Brings the leaves up to date after value_n was written.
  void Refresh();
  // Views of `flat_n`, which is laid out as value_n: one per weight, by name.
  std::map<std::string, at::Tensor> Split(const at::Tensor& flat_n) const;

  const at::Tensor& value_n() const { return value_n_; }
  const at::Tensor& gradient_n() const { return gradient_n_; }
  // The storage of the leaves, which are views; value_n itself in f32.
  const at::Tensor& working_n() const { return working_n_; }
  int64_t num_decayed() const { return num_decayed_; }

 private:
  std::vector<NamedWeight> weights_;
  at::Tensor value_n_, gradient_n_;
  at::Tensor working_n_;
  int64_t num_decayed_ = 0;
};

struct AdamWSettings {
  double beta1 = 0.9, beta2 = 0.99, eps = 1e-8, weight_decay = 0;
};

// f32, laid out as the weights, or undefined; after a step it moves towards them by `share` of the
// way.
struct RunningAverage {
  at::Tensor average_n;
  double share = 0;
};

// AdamW (Loshchilov & Hutter 2019), decay decoupled and only on weights of two or more dimensions.
class FlatAdamW {
 public:
  FlatAdamW(FlatParameters& parameters, const AdamWSettings& settings);

  // One update with the gradients times `gradient_factor`; brings the leaves up to date too.
  void Step(double lr, double gradient_factor, const RunningAverage& average = {});

  int64_t steps() const { return steps_; }
  void set_steps(int64_t steps) { steps_ = steps; }
  const at::Tensor& first_n() const { return first_n_; }
  const at::Tensor& second_n() const { return second_n_; }

 private:
  FlatParameters& parameters_;
  AdamWSettings settings_;
  int64_t steps_ = 0;
  at::Tensor first_n_, second_n_;
};

// The length of the gradient and the factor that brings it down to `clip` (1 when it is shorter or
// clip is 0). Throws Error(kInternal) when it is not finite: training has diverged.
struct Clip {
  double norm = 0, factor = 1;
};
Clip ClipTo(double clip, const FlatParameters& parameters);

// Sums the gradients over all ranks.
void SumGradients(dist::Communicator& world, const FlatParameters& parameters);

}  // namespace lwm::vision_train
