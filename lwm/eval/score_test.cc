#include "lwm/eval/score.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <optional>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/tiny_model.h"

namespace lwm::eval {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

constexpr int32_t kBos = 1;

void Ignore(int64_t, int64_t) {}

// -log p of each target by a softmax over all logits of one row, f64.
at::Tensor ReferenceNll(const config::ModelConfig& config, const model::WeightReader& weights,
                        const infer::TokenBatch& row) {
  const model::DecoderInput input = infer::DecoderInputOf(row, nullptr);
  const at::Tensor hidden_TD = model::DecoderHidden(config, weights, input, {}).select(0, 0);
  const at::Tensor logits_TV =
      at::linear(hidden_TD, weights.NonLayer().head_VD.dense()).to(at::kDouble);
  return at::log_softmax(logits_TV, 1)
      .gather(1, row.target_BT.select(0, 0).unsqueeze(1))
      .squeeze(1)
      .neg();
}

std::vector<int32_t> RandomIds(int64_t count, int64_t vocab) {
  const at::Tensor id_T = at::randint(vocab, {count}, at::kInt);
  return {id_T.const_data_ptr<int32_t>(), id_T.const_data_ptr<int32_t>() + count};
}

infer::TokenBatch RowOfText(const std::vector<int32_t>& ids, int64_t begin, int64_t end,
                            int64_t bos) {
  infer::TokenBatch row;
  row.target_BT = at::tensor(at::ArrayRef<int32_t>(ids), at::kInt)
                      .slice(0, begin, end)
                      .to(at::kLong)
                      .unsqueeze(0);
  row.id_BT = at::cat({at::full({1, 1}, bos, at::kLong), row.target_BT.slice(1, 0, -1)}, 1);
  row.begin_BT = at::zeros(row.id_BT.sizes(), at::kInt);
  return row;
}

TEST(ScoreTest, ATextIsScoredOnceInRowsThatBeginWithBos) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const auto ids = RandomIds(2500, config.vocab_size);
  const Score score = ScoreText({config, weights, {}}, kBos, ids, 1100, Ignore);
  double all = 0, first = 0;
  for (const auto& [begin, end] : {std::pair{0, 1100}, {1100, 2200}, {2200, 2500}}) {
    const at::Tensor nll_T = ReferenceNll(config, weights, RowOfText(ids, begin, end, kBos));
    all += nll_T.sum().item<double>();
    first += nll_T.slice(0, 0, 1024).sum().item<double>();
  }
  EXPECT_EQ(score.all.tokens, 2500);
  EXPECT_NEAR(score.all.nll / all, 1, 1e-6);
  EXPECT_EQ(score.text.tokens, 2500);
  EXPECT_EQ(score.vision.tokens, 0);
  ASSERT_EQ(score.buckets.size(), 2u);
  EXPECT_EQ(score.buckets[0].end, 1024);
  EXPECT_EQ(score.buckets[1].end, 2048);
  EXPECT_EQ(score.buckets[0].tally.tokens, 1024 + 1024 + 300);
  EXPECT_NEAR(score.buckets[0].tally.nll / first, 1, 1e-6);
  EXPECT_NEAR(score.buckets[1].tally.nll / (all - first), 1, 1e-6);
  EXPECT_NEAR(score.all.Perplexity(), std::exp(all / 2500), 1e-3);
}

TEST(ScoreTest, WithoutBosEachRowsFirstTokenIsReadAndNotPredicted) {
  const auto config =
      TinyConfig();  // it names a BOS, which the tokenizer does not put before texts
  auto weights = TinyWeights(config);
  const auto ids = RandomIds(41, config.vocab_size);
  const Score score = ScoreText({config, weights, {}}, std::nullopt, ids, 20, Ignore);
  double all = 0;
  for (const auto& [begin, end] : {std::pair{0, 20}, {20, 40}}) {  // the last row has one token
    const auto first = static_cast<int32_t>(ids[static_cast<size_t>(begin)]);
    all +=
        ReferenceNll(config, weights, RowOfText(ids, begin + 1, end, first)).sum().item<double>();
  }
  EXPECT_EQ(score.all.tokens, 38);
  EXPECT_NEAR(score.all.nll / all, 1, 1e-6);
}

TEST(ScoreTest, ABatchWithoutLabelsPredictsTheNextTokenOfEachSegment) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const at::Tensor id_BT = at::randint(config.vocab_size, {2, 9}, at::kInt);
  const at::Tensor segment_BT =
      at::tensor({0, 0, 0, 0, 1, 1, 1, 1, 1}, at::kInt).expand({2, 9}).contiguous();
  const infer::TokenBatch batch =
      infer::MakeTokenBatch({{"input_ids", id_BT}, {"segment_ids", segment_BT}}, config, "x");
  const Score score = ScoreBatch({config, weights, {}}, batch, Ignore);
  EXPECT_EQ(score.all.tokens, 2 * (3 + 4));
  double want = 0;
  for (int64_t b = 0; b < 2; ++b)
    for (const auto& [begin, end] : {std::pair{0, 4}, {4, 9}}) {
      infer::TokenBatch part;
      part.id_BT = batch.id_BT.slice(0, b, b + 1).slice(1, begin, end - 1);
      part.target_BT = batch.id_BT.slice(0, b, b + 1).slice(1, begin + 1, end);
      part.begin_BT = at::zeros(part.id_BT.sizes(), at::kInt);
      want += ReferenceNll(config, weights, part).sum().item<double>();
    }
  EXPECT_NEAR(score.all.nll / want, 1, 1e-6);
}

TEST(ScoreTest, VisionTargetsAreCountedApart) {
  const auto config = TinyConfig(/*vision_vocab_size=*/90);
  auto weights = TinyWeights(config);
  const at::Tensor id_BT = at::tensor({1, 2, 80, 81, 5}, at::kInt).unsqueeze(0);
  const at::Tensor vision_BT = at::tensor({0, 0, 1, 1, 0}, at::kByte).unsqueeze(0);
  const infer::TokenBatch batch =
      infer::MakeTokenBatch({{"input_ids", id_BT}, {"vision_mask", vision_BT}}, config, "x");
  const Score score = ScoreBatch({config, weights, {}}, batch, Ignore);
  EXPECT_EQ(score.text.tokens, 2);
  EXPECT_EQ(score.vision.tokens, 2);
  EXPECT_NEAR(score.text.nll + score.vision.nll, score.all.nll, 1e-9);
  EXPECT_TRUE(ScoreToJson(score).contains("vision"));
}

TEST(ScoreTest, NothingToPredictIsRefused) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  EXPECT_ERROR(ScoreText({config, weights, {}}, kBos, {}, 16, Ignore), kInvalidArgument);
  EXPECT_ERROR(ScoreText({config, weights, {}}, std::nullopt, RandomIds(1, 9), 16, Ignore),
               kInvalidArgument);
  EXPECT_ERROR(ScoreText({config, weights, {}}, kBos, RandomIds(9, 9), 2049, Ignore),
               kInvalidArgument);
  const infer::TokenBatch batch =
      infer::MakeTokenBatch({{"input_ids", at::zeros({3, 1}, at::kInt)}}, config, "x");
  EXPECT_ERROR(ScoreBatch({config, weights, {}}, batch, Ignore), kInvalidArgument);
}

TEST(ScoreTest, IdsOutsideTheVocabularyAreRefusedWhereverTheyStand) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const auto message = [&](std::optional<int32_t> bos,
                           const std::vector<int32_t>& ids) -> std::string {
    try {
      ScoreText({config, weights, {}}, bos, ids, 16, Ignore);
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message(kBos, {1, 61}), "text: text id 61 is outside the vocabulary of 61");
  EXPECT_EQ(message(std::nullopt, {61, 1}), "text: text id 61 is outside the vocabulary of 61");
  EXPECT_EQ(message(70, {2, 1}), "text: text id 70 is outside the vocabulary of 61");
}

}  // namespace
}  // namespace lwm::eval
