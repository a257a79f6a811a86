#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/train/sharded_weights.h"

namespace lwm::train {

struct AdamWOptions {
  double beta1 = 0.9, beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  std::vector<std::string> no_decay;  // parts of tensor names; "norm" excludes every norm
};

// AdamW (Loshchilov & Hutter 2019) on this rank's shards, with bias correction; decay is decoupled:
//   p -= lr * (m^ / (sqrt(v^) + eps) + weight_decay * p)
// Moments are f32, laid out as the shards are: 8 bytes a parameter of this rank.
class AdamW {
 public:
  struct Moments {
    at::Tensor first_n, second_n;  // f32, as GroupShard::master_n
  };

  // Moments 0, no steps taken. The weights must outlive this.
  AdamW(ShardedWeights& weights, const AdamWOptions& options);

  // One update with the weights' gradients times gradient_factor (clipping, 1 / accumulation).
  // Leaves the gradients zeroed and the compute weights up to date. lr = 0 fills the moments and
  // moves nothing. The same bits for any number of threads. Local; all ranks must call it.
  void Step(double lr, double gradient_factor);

  int64_t steps() const { return steps_; }  // updates so far, for bias correction
  void set_steps(int64_t steps) { steps_ = steps; }
  Moments& moments(int64_t group) { return moments_[static_cast<size_t>(group + 1)]; }
  const AdamWOptions& options() const { return options_; }

 private:
  ShardedWeights& weights_;
  AdamWOptions options_;
  int64_t steps_ = 0;
  std::vector<Moments> moments_;
};

}  // namespace lwm::train
