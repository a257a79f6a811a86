#include "lwm/train/adamw.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"

namespace lwm::train {
namespace {

bool Decays(const AdamWOptions& options, const std::string& name) {
  for (const std::string& part : options.no_decay)
    if (name.find(part) != std::string::npos) return false;
  return true;
}

constexpr int64_t kChunk = 1 << 15;  // elements; what is touched of them stays in a core's cache

// A run of neighbours in one shard that are updated alike.
struct Span {
  int64_t group, begin, end;
  bool decays;
};

// Neighbours of one kind form one span, padding included; long ones are cut.
void AddSpans(int64_t group, int64_t begin, int64_t end, bool decays, std::vector<Span>& spans) {
  for (; begin < end; begin += kChunk)
    spans.push_back({group, begin, std::min(end, begin + kChunk), decays});
}

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
  std::vector<Span> spans;
  for (int64_t group = weights_.first_group(); group < weights_.end_group(); ++group) {
    const GroupShard& shard = weights_.shard(group);
    int64_t begin = 0;
    bool decays = true;
    for (const ShardPiece& piece : shard.pieces) {
      // Padding between pieces joins either kind: masters and gradients are 0 there and stay 0.
      if (Decays(options_, piece.spec.name) == decays) continue;
      AddSpans(group, begin, piece.offset, decays, spans);
      begin = piece.offset;
      decays = !decays;
    }
    AddSpans(group, begin, shard.master_n.numel(), decays, spans);
  }
  const at::Tensor steps = at::full({}, static_cast<double>(steps_), at::kFloat);
  // LibTorch divides gradients by its grad_scale: the factor's inverse.
  const std::optional<at::Tensor> divisor =
      gradient_factor == 1 ? std::nullopt
                           : std::optional(at::full({}, 1 / gradient_factor, at::kFloat));
  // Chunk by chunk: update, cast and zero pass over memory once.
  at::parallel_for(0, static_cast<int64_t>(spans.size()), 1, [&](int64_t first, int64_t last) {
    for (int64_t i = first; i < last; ++i) {
      const Span& span = spans[static_cast<size_t>(i)];
      const auto cut = [&](const at::Tensor& n) {
        return n.narrow(0, span.begin, span.end - span.begin);
      };
      const GroupShard& shard = weights_.shard(span.group);
      const Moments& moment = moments(span.group);
      const at::Tensor master = cut(shard.master_n), gradient = cut(shard.gradient_n);
      at::_fused_adamw_({master}, {gradient}, {cut(moment.first_n)}, {cut(moment.second_n)}, {},
                        {steps}, lr, options_.beta1, options_.beta2,
                        span.decays ? options_.weight_decay : 0.0, options_.eps,
                        /*amsgrad=*/false, /*maximize=*/false, divisor);
      if (!shard.compute_n.is_same(shard.master_n)) cut(shard.compute_n).copy_(master);
      gradient.zero_();
    }
  });
  weights_.ComputeWeightsChanged();
}

}  // namespace lwm::train
