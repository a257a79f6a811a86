#include "lwm/train/evaluate.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <optional>

#include "lwm/train/batch.h"

namespace lwm::train {
namespace {

constexpr int64_t kFirstBucket = 1024;
constexpr size_t kBuckets = 32;  // enough for 2^41 tokens

size_t BucketOf(int64_t position) {
  return static_cast<size_t>(std::bit_width(static_cast<uint64_t>(position / kFirstBucket)));
}

// Sums over ranks, as one array of doubles.
struct Sums {
  std::array<double, 2 + 2 * kBuckets> values{};
  double& text() { return values[0]; }
  double& vision() { return values[1]; }
  double& nll(size_t bucket) { return values[2 + bucket]; }
  double& tokens(size_t bucket) { return values[2 + kBuckets + bucket]; }
};

void AddTokens(const Batch& batch, const at::Tensor& nll_BT, Sums& sums) {
  const at::Tensor target_T = batch.targets.id_BT.reshape({-1});
  const at::Tensor position_T = batch.input.position_BT.reshape({-1});
  const at::Tensor nll_T = nll_BT.reshape({-1}).contiguous();
  const auto* target = target_T.const_data_ptr<int64_t>();
  const auto* position = position_T.const_data_ptr<int32_t>();
  const auto* nll = nll_T.const_data_ptr<float>();
  for (int64_t t = 0; t < target_T.numel(); ++t) {
    if (target[t] == kNoTarget) continue;
    const size_t bucket = BucketOf(position[t]);
    sums.nll(bucket) += nll[t];
    sums.tokens(bucket) += 1;
  }
}

Evaluation FromSums(Sums& sums, int64_t examples, bool has_vision) {
  Evaluation result;
  const auto divisor = static_cast<double>(std::max<int64_t>(examples, 1));
  result.losses.text_loss = sums.text() / divisor;
  result.losses.vision_loss = sums.vision() / divisor;
  result.losses.loss =
      (has_vision ? 0.5 : 1.0) * (result.losses.text_loss + result.losses.vision_loss);
  double nll = 0;
  for (size_t bucket = 0; bucket < kBuckets; ++bucket) {
    const double tokens = sums.tokens(bucket);
    if (tokens == 0) continue;
    nll += sums.nll(bucket);
    result.tokens += static_cast<int64_t>(tokens);
    result.buckets.push_back({.end = kFirstBucket << bucket,
                              .tokens = static_cast<int64_t>(tokens),
                              .loss = sums.nll(bucket) / tokens});
  }
  if (result.tokens > 0) result.token_loss = nll / static_cast<double>(result.tokens);
  return result;
}

}  // namespace

Json ToJson(const Evaluation& evaluation, int64_t step) {
  Json buckets = Json::array();
  for (const PositionBucket& bucket : evaluation.buckets)
    buckets.push_back({{"end", bucket.end}, {"tokens", bucket.tokens}, {"loss", bucket.loss}});
  return {{"step", step},
          {"loss", evaluation.losses.loss},
          {"text_loss", evaluation.losses.text_loss},
          {"vision_loss", evaluation.losses.vision_loss},
          {"token_loss", evaluation.token_loss},
          {"perplexity", std::exp(evaluation.token_loss)},
          {"tokens", evaluation.tokens},
          {"buckets", buckets}};
}

Evaluation Evaluate(ShardedWeights& weights, data::RowSequence& rows, int64_t max_rows,
                    const StepOptions& options) {
  dist::Mesh& mesh = weights.mesh();
  model::DecoderOptions decoder = options.decoder;
  decoder.tp = mesh.shape().tp > 1 ? &mesh.tp() : nullptr;
  Sums sums;
  int64_t examples = 0;
  std::optional<data::Row> row = rows.Next();
  const auto next = [&] {
    data::Row taken = std::move(*row);
    examples += taken.examples;
    row = rows.Next();
    return taken;
  };
  // One row for each data rank at a time, so that memory does not grow with the number of rows.
  for (int64_t done = 0; row && done < max_rows;) {
    std::vector<data::Row> group;
    while (row && static_cast<int>(group.size()) < mesh.data_size() && done < max_rows)
      group.push_back(next()), ++done;
    const auto own = static_cast<size_t>(mesh.data_rank());
    // The last group may be short. Ranks without a row take part with an empty one: the passes hold
    // collective calls.
    if (own >= group.size()) group.resize(own + 1, EmptyRow(group[0].token_S.size()));
    const Batch batch = MakeBatch({&group[own]}, mesh.sp());
    const model::DecoderLoss loss =
        model::DecoderForward(weights.config(), weights, batch.input, batch.targets, decoder);
    sums.text() += loss.text_loss;
    sums.vision() += loss.vision_loss;
    AddTokens(batch, loss.nll_BT, sums);
  }
  mesh.data().AllReduceSum(std::span<double>(sums.values));
  return FromSums(sums, examples, weights.config().has_vision());
}

}  // namespace lwm::train
