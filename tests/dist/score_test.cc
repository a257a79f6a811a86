// A row that ranks share is scored as one rank would.
#include "lwm/eval/score.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/testing/tiny_model.h"
#include "tests/dist/mpi_main.h"

namespace lwm::infer {
namespace {

using testing_support::TinyConfig;
using testing_support::TinyWeights;

void ExpectSame(const eval::Tally& got, const eval::Tally& want) {
  EXPECT_EQ(got.tokens, want.tokens);
  EXPECT_NEAR(got.nll, want.nll, 2e-6 * want.nll);
}

TEST(ScoreOverRanksTest, EqualsTheScoreOfOneRank) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);  // the same on every rank: seeded
  const at::Tensor id_T = at::randint(config.vocab_size, {1403}, at::kInt);
  const std::span<const int32_t> ids(id_T.const_data_ptr<int32_t>(), 1403);
  const auto ignore = [](int64_t, int64_t) {};
  const eval::Score one = eval::ScoreText({config, weights, {}}, 1, ids, 1201, ignore);
  const eval::Score shared =
      eval::ScoreText({config, weights, {}, &lwm::testing::World()}, 1, ids, 1201, ignore);
  EXPECT_EQ(one.all.tokens, 1403);
  ExpectSame(shared.all, one.all);
  ASSERT_EQ(shared.buckets.size(), one.buckets.size());
  for (size_t i = 0; i < one.buckets.size(); ++i)
    ExpectSame(shared.buckets[i].tally, one.buckets[i].tally);
}

TEST(ScoreOverRanksTest, SegmentsOfARowMayLieOnSeveralRanks) {
  const auto config = TinyConfig();
  auto weights = TinyWeights(config);
  const at::Tensor id_BT = at::randint(config.vocab_size, {2, 61}, at::kInt);
  const at::Tensor segment_BT =
      at::arange(61, at::kInt).floor_divide(23).expand({2, 61}).contiguous();
  const TokenBatch batch =
      MakeTokenBatch({{"input_ids", id_BT}, {"segment_ids", segment_BT}}, config, "batch");
  const auto ignore = [](int64_t, int64_t) {};
  const eval::Score one = eval::ScoreBatch({config, weights, {}}, batch, ignore);
  EXPECT_EQ(one.all.tokens, 2 * (61 - 3));
  ExpectSame(eval::ScoreBatch({config, weights, {}, &lwm::testing::World()}, batch, ignore).all,
             one.all);
}

}  // namespace
}  // namespace lwm::infer
