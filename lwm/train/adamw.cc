#include "lwm/train/adamw.h"

#include <ATen/ATen.h>

#include <cmath>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

bool Decays(const AdamWOptions& options, const std::string& name) {
  for (const std::string& part : options.no_decay)
    if (name.find(part) != std::string::npos) return false;
  return true;
}

// The same span of four buffers, for each of many spans.
struct Batch {
  std::vector<at::Tensor> master, gradient, first, second, step;

  void Add(const GroupShard& shard, const AdamW::Moments& moments, const at::Tensor& steps,
           int64_t begin, int64_t end) {
    if (begin == end) return;
    master.push_back(shard.master_n.narrow(0, begin, end - begin));
    gradient.push_back(shard.gradient_n.narrow(0, begin, end - begin));
    first.push_back(moments.first_n.narrow(0, begin, end - begin));
    second.push_back(moments.second_n.narrow(0, begin, end - begin));
    step.push_back(steps);
  }
};

}  // namespace

AdamW::AdamW(ShardedWeights& weights, const AdamWOptions& options)
    : weights_(weights), options_(options) {
  for (int64_t group = weights.first_group(); group < weights.end_group(); ++group) {
    const at::Tensor& master_n = weights.shard(group).master_n;
    moments_.push_back({at::zeros_like(master_n), at::zeros_like(master_n)});
  }
}

void AdamW::Step(double lr, double gradient_factor) {
  LWM_CHECK(std::isfinite(lr) && std::isfinite(gradient_factor) && gradient_factor > 0,
            "AdamW step with lr ", lr, " and gradient factor ", gradient_factor);
  ++steps_;
  const at::Tensor steps = at::full({}, static_cast<double>(steps_), at::kFloat);
  Batch with_decay, without_decay;
  for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group) {
    const GroupShard& shard = weights_.shard(group);
    // Neighbours of one kind are updated as one span, padding included.
    int64_t begin = 0;
    bool decays = true;
    for (const ShardPiece& piece : shard.pieces) {
      if (Decays(options_, piece.spec.name) == decays) continue;
      (decays ? with_decay : without_decay).Add(shard, moments(group), steps, begin, piece.offset);
      begin = piece.offset;
      decays = !decays;
    }
    (decays ? with_decay : without_decay)
        .Add(shard, moments(group), steps, begin, shard.master_n.numel());
  }
  const std::optional<at::Tensor> divisor =
      gradient_factor == 1 ? std::nullopt
                           : std::optional(at::full({}, 1 / gradient_factor, at::kFloat));
  for (const auto& [batch, decay] :
       {std::pair{&with_decay, options_.weight_decay}, std::pair{&without_decay, 0.0}})
    if (!batch->master.empty())
      at::_fused_adamw_(batch->master, batch->gradient, batch->first, batch->second, {},
                        batch->step, lr, options_.beta1, options_.beta2, decay, options_.eps,
                        /*amsgrad=*/false, /*maximize=*/false, divisor);
  weights_.ZeroGradients();
  weights_.MastersChanged();
}

}  // namespace lwm::train
