#include "lwm/eval/score.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <array>
#include <cmath>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/no_target.h"

namespace lwm::eval {
namespace {

constexpr int64_t kFirstBucketTokens = 1024;

Tally TallyOf(const at::Tensor& nll_N, dist::Communicator* sp) {
  // Counts as doubles, exact up to 2^53: one all-reduce for both.
  std::array<double, 2> sums = {static_cast<double>(nll_N.numel()),
                                nll_N.to(at::kDouble).sum().item<double>()};
  if (sp != nullptr) sp->AllReduceSum(std::span<double>(sums));
  return {static_cast<int64_t>(std::llround(sums[0])), sums[1]};
}

void Add(Tally& to, const Tally& from) {
  to.tokens += from.tokens;
  to.nll += from.nll;
}

// Buckets up to the one that holds position `tokens` - 1.
void ExtendBuckets(std::vector<PositionBucket>& buckets, int64_t tokens) {
  while (buckets.empty() || buckets.back().end < tokens) {
    const int64_t begin = buckets.empty() ? 0 : buckets.back().end;
    buckets.push_back({begin, std::max(kFirstBucketTokens, 2 * begin), {}});
  }
}

void AddRow(const Scorer& scorer, const infer::TokenBatch& row, Score& score) {
  const model::DecoderInput input = infer::DecoderInputOf(row, scorer.sp);
  const model::DecoderTargets targets = infer::DecoderTargetsOf(row, input);
  const model::DecoderLoss loss =
      model::DecoderForward(scorer.config, scorer.weights, input, targets, scorer.options);
  const at::Tensor wanted_BT = targets.id_BT.ne(kNoTarget);
  const at::Tensor vision_BT =
      targets.vision_BT.defined() ? targets.vision_BT : at::zeros_like(wanted_BT);
  const auto tally = [&](const at::Tensor& chosen_BT) {
    return TallyOf(loss.nll_BT.masked_select(chosen_BT.logical_and(wanted_BT)), scorer.sp);
  };
  Add(score.all, tally(wanted_BT));
  Add(score.text, tally(vision_BT.logical_not()));
  Add(score.vision, tally(vision_BT));
  ExtendBuckets(score.buckets, row.tokens());
  for (PositionBucket& bucket : score.buckets)
    Add(bucket.tally,
        tally(input.position_BT.ge(bucket.begin).logical_and(input.position_BT.lt(bucket.end))));
}

// Each token's target becomes the next token of its segment.
infer::TokenBatch WithNextTokenTargets(infer::TokenBatch batch) {
  const int64_t tokens = batch.tokens();
  batch.target_BT = at::full_like(batch.id_BT, kNoTarget);
  batch.weight_BT = at::ones(batch.id_BT.sizes(), at::kFloat);
  if (batch.vision_BT.defined()) batch.target_vision_BT = batch.vision_BT.roll(-1, 1);
  if (tokens < 2) return batch;
  const at::Tensor same_segment =
      batch.begin_BT.slice(1, 1).eq(batch.begin_BT.slice(1, 0, tokens - 1));
  batch.target_BT.slice(1, 0, tokens - 1)
      .copy_(batch.id_BT.slice(1, 1).masked_fill(same_segment.logical_not(), kNoTarget));
  return batch;
}

Json TallyToJson(const Tally& tally) {
  return {{"tokens", tally.tokens}, {"loss", tally.Loss()}, {"perplexity", tally.Perplexity()}};
}

infer::TokenBatch TextRow(std::span<const int32_t> ids, std::optional<int32_t> bos) {
  const auto count = static_cast<int64_t>(ids.size());
  const at::Tensor id_S =
      at::tensor(at::ArrayRef<int32_t>(ids.data(), ids.size()), at::kInt).to(at::kLong);
  infer::TokenBatch row;
  if (bos) {
    // BOS takes a place of the input, so every token of the row is a target.
    row.id_BT = at::cat({at::full({1}, *bos, at::kLong), id_S.slice(0, 0, count - 1)}).unsqueeze(0);
    row.target_BT = id_S.unsqueeze(0);
  } else {
    row.id_BT = id_S.slice(0, 0, count - 1).unsqueeze(0);
    row.target_BT = id_S.slice(0, 1).unsqueeze(0);
  }
  row.begin_BT = at::zeros(row.id_BT.sizes(), at::kInt);
  row.weight_BT = at::ones(row.id_BT.sizes(), at::kFloat);
  return row;
}

}  // namespace

double Tally::Perplexity() const { return std::exp(Loss()); }

Json ScoreToJson(const Score& score) {
  Json json = TallyToJson(score.all);
  if (score.vision.tokens > 0) {
    json["text"] = TallyToJson(score.text);
    json["vision"] = TallyToJson(score.vision);
  }
  json["buckets"] = Json::array();
  for (const PositionBucket& bucket : score.buckets) {
    Json entry = TallyToJson(bucket.tally);
    entry["from"] = bucket.begin;
    entry["to"] = bucket.end;
    json["buckets"].push_back(std::move(entry));
  }
  return json;
}

Score ScoreBatch(const Scorer& scorer, const infer::TokenBatch& batch, const OnScored& on_scored) {
  const infer::TokenBatch whole = batch.target_BT.defined() ? batch : WithNextTokenTargets(batch);
  const auto wanted = whole.target_BT.ne(kNoTarget).sum().item<int64_t>();
  LWM_REQUIRE(wanted > 0, "the input has no token to predict");
  Score score;
  // Row by row: memory is that of one row.
  for (int64_t b = 0; b < whole.rows(); ++b) {
    AddRow(scorer, infer::RowOf(whole, b), score);
    on_scored(score.all.tokens, wanted);
  }
  return score;
}

Score ScoreText(const Scorer& scorer, std::optional<int32_t> bos, std::span<const int32_t> ids,
                int64_t length, const OnScored& on_scored) {
  const int64_t context = infer::ContextLimit(scorer.config);
  LWM_REQUIRE(length >= 2 && length <= context, "length is ", length, ", want 2 to ", context,
              " (max_position_embeddings)");
  const auto all = static_cast<int64_t>(ids.size());
  LWM_REQUIRE(all >= (bos ? 1 : 2), "the text has ", CountOf(all, "token"),
              ": there is nothing to predict");
  Score score;
  for (int64_t begin = 0; begin < all; begin += length) {
    const auto count = static_cast<size_t>(std::min(length, all - begin));
    // A last row of one token has nothing before it to predict it from.
    if (!bos && count < 2) break;
    const infer::TokenBatch row = TextRow(ids.subspan(static_cast<size_t>(begin), count), bos);
    for (const at::Tensor& id_BT : {row.id_BT, row.target_BT})
      infer::CheckTokenIds(id_BT, {}, scorer.config, /*may_be_absent=*/false, "text");
    AddRow(scorer, row, score);
    on_scored(score.all.tokens, all);
  }
  return score;
}

}  // namespace lwm::eval
