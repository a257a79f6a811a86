#include "lwm/dist/sequence_plan.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <numeric>

#include "lwm/base/random.h"

namespace lwm::dist {
namespace {

using Planner = SequencePlan (*)(int64_t, int, std::span<const int32_t>);
constexpr Planner kPlanners[] = {PlanZigzag, PlanBalanced};

// Segment starts of a row of segments with these lengths.
std::vector<int32_t> Begins(const std::vector<int64_t>& lengths) {
  std::vector<int32_t> begin_S;
  for (const int64_t length : lengths) {
    begin_S.insert(begin_S.end(), static_cast<size_t>(length),
                   static_cast<int32_t>(begin_S.size()));
  }
  return begin_S;
}

// Random lengths that fill `row_tokens`; one in four is long.
std::vector<int64_t> RandomLengths(int64_t row_tokens, Random& random) {
  std::vector<int64_t> lengths;
  for (int64_t left = row_tokens; left > 0; left -= lengths.back()) {
    const uint64_t most = random.Below(4) == 0 ? static_cast<uint64_t>(row_tokens) / 2 : 300;
    lengths.push_back(std::min(left, static_cast<int64_t>(1 + random.Below(most))));
  }
  return lengths;
}

double Balance(const SequencePlan& plan) {
  const auto area_P = AllowedAreaPerRank(plan);
  const double sum = static_cast<double>(std::accumulate(area_P.begin(), area_P.end(), int64_t{0}));
  return sum / plan.ranks / static_cast<double>(*std::max_element(area_P.begin(), area_P.end()));
}

void ExpectCoversRow(const SequencePlan& plan, int64_t row_tokens,
                     const std::vector<int32_t>& begin_S) {
  ASSERT_EQ(plan.row_tokens, row_tokens);
  std::vector<int> seen(static_cast<size_t>(row_tokens), 0);
  for (int rank = 0; rank < plan.ranks; ++rank) {
    const auto index_T = plan.index(rank), begin_T = plan.begin(rank);
    ASSERT_EQ(static_cast<int64_t>(index_T.size()), plan.tokens_per_rank);
    for (size_t t = 0; t < index_T.size(); ++t) {
      if (index_T[t] < 0) {
        EXPECT_EQ(index_T[t], -1);
        EXPECT_EQ(begin_T[t], 0);
        EXPECT_TRUE(t + 1 == index_T.size() || index_T[t + 1] == -1) << "empty slots come last";
        continue;
      }
      ++seen.at(static_cast<size_t>(index_T[t]));
      EXPECT_EQ(begin_T[t], begin_S.empty() ? 0 : begin_S[static_cast<size_t>(index_T[t])]);
      EXPECT_TRUE(t == 0 || index_T[t - 1] < index_T[t]);
    }
  }
  EXPECT_EQ(seen, std::vector<int>(static_cast<size_t>(row_tokens), 1));
}

TEST(SequencePlanTest, EveryTokenHasExactlyOneSlot) {
  Random random(1);
  for (const Planner planner : kPlanners) {
    for (const int ranks : {1, 2, 3, 4, 7, 16}) {
      for (const int64_t tokens : {1, 2, 3, 5, 15, 16, 17, 101, 1000, 4099}) {
        ExpectCoversRow(planner(tokens, ranks, {}), tokens, {});
        const auto begin_S = Begins(RandomLengths(tokens, random));
        ExpectCoversRow(planner(tokens, ranks, begin_S), tokens, begin_S);
      }
    }
  }
}

TEST(SequencePlanTest, SlotsAreBarelyMoreThanTokens) {
  for (const int ranks : {1, 2, 3, 4, 7}) {
    for (const int64_t tokens : {1, 2, 7, 100, 1003, 65537}) {
      const int64_t least = (tokens + ranks - 1) / ranks;
      EXPECT_LE(PlanZigzag(tokens, ranks, {}).tokens_per_rank, least + 1);
      EXPECT_EQ(PlanBalanced(tokens, ranks, {}).tokens_per_rank, least);
    }
  }
}

TEST(SequencePlanTest, ZigzagGivesRankItsTwoChunksAndEqualCausalArea) {
  const SequencePlan plan = PlanZigzag(24, 3, {});
  EXPECT_EQ(std::vector<int32_t>(plan.index(0).begin(), plan.index(0).end()),
            (std::vector<int32_t>{0, 1, 2, 3, 20, 21, 22, 23}));
  for (const int ranks : {2, 3, 4, 8}) {
    EXPECT_EQ(Balance(PlanZigzag(int64_t{2} * ranks * 50, ranks, {})), 1.0);
    EXPECT_GT(Balance(PlanZigzag(int64_t{2} * ranks * 50 + 3, ranks, {})), 0.97);
  }
}

TEST(SequencePlanTest, BalancedEvensTheAreaOfPackedRows) {
  Random random(7);
  double worst = 1, worst_zigzag = 1;
  for (int trial = 0; trial < 40; ++trial) {
    for (const int ranks : {2, 3, 4, 8}) {
      const int64_t tokens = 4096 + static_cast<int64_t>(random.Below(30000));
      const auto begin_S = Begins(RandomLengths(tokens, random));
      worst = std::min(worst, Balance(PlanBalanced(tokens, ranks, begin_S)));
      worst_zigzag = std::min(worst_zigzag, Balance(PlanZigzag(tokens, ranks, begin_S)));
    }
  }
  RecordProperty("worst", std::to_string(worst));
  EXPECT_GE(worst, 0.997);
  EXPECT_LT(worst_zigzag, 0.8) << "the mixes are too easy to tell the plans apart";
}

TEST(SequencePlanTest, BalancedHoldsForOneSegmentAndForOneLongAmongShort) {
  for (const int ranks : {2, 3, 4, 8}) {
    EXPECT_GE(Balance(PlanBalanced(16384, ranks, {})), 0.997);
    EXPECT_GE(Balance(PlanBalanced(128 * ranks, ranks, {})), 0.99);
    std::vector<int64_t> lengths(2000, 5);
    lengths.insert(lengths.begin() + 700, 6000);
    EXPECT_GE(Balance(PlanBalanced(16000, ranks, Begins(lengths))), 0.997);
  }
}

TEST(SequencePlanTest, BalancedKeepsShortSegmentsWholeWhereThatComesOutEven) {
  for (const int ranks : {2, 4, 8}) {
    const auto begin_S = Begins(std::vector<int64_t>(32, 512));
    const SequencePlan plan = PlanBalanced(16384, ranks, begin_S);
    EXPECT_EQ(Balance(plan), 1.0);
    for (int rank = 0; rank < ranks; ++rank) {
      const auto index_T = plan.index(rank), begin_T = plan.begin(rank);
      for (size_t t = 0; t < index_T.size(); ++t) {
        EXPECT_TRUE(index_T[t] == begin_T[t] || index_T[t - 1] == index_T[t] - 1) << t;
      }
    }
  }
}

TEST(SequencePlanTest, RowsShorterThanTheRanksLeaveEmptySlots) {
  for (const Planner planner : kPlanners) {
    const SequencePlan plan = planner(1, 4, {});
    EXPECT_EQ(plan.tokens_per_rank, 1);
    EXPECT_EQ(std::count(plan.index_PT.begin(), plan.index_PT.end(), -1), 3);
    const auto area_P = AllowedAreaPerRank(plan);
    EXPECT_EQ(std::accumulate(area_P.begin(), area_P.end(), int64_t{0}), 1);
  }
}

}  // namespace
}  // namespace lwm::dist
