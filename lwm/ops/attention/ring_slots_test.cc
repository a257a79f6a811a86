#include "lwm/ops/attention/ring_slots.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/dist/sequence_plan.h"

namespace lwm::ops {
namespace {

struct Hull {
  int64_t first = -1, end = -1;
  void Include(int64_t slot) {
    first = first < 0 ? slot : std::min(first, slot);
    end = std::max(end, slot + 1);
  }
};

// The rule of attention, pair by pair.
RingSlots Definition(const SequenceView& view) {
  const auto index = view.index_PBT.accessor<int32_t, 3>();
  const auto begin = view.begin_PBT.accessor<int32_t, 3>();
  RingSlots slots;
  for (int64_t owner = 0; owner < view.ranks(); ++owner) {
    Hull keys, queries;
    for (int64_t other = 0; other < view.ranks(); ++other) {
      if (other == owner) continue;
      for (int64_t b = 0; b < view.rows(); ++b) {
        for (int64_t t = 0; t < view.tokens(); ++t) {
          const auto sees = [&](int64_t q, int64_t i, int64_t k, int64_t j) {
            return index[k][b][j] >= 0 && begin[q][b][i] <= index[k][b][j] &&
                   index[k][b][j] <= index[q][b][i];
          };
          for (int64_t u = 0; u < view.tokens(); ++u) {
            if (sees(other, u, owner, t)) keys.Include(t);
            if (sees(owner, t, other, u)) queries.Include(t);
          }
        }
      }
    }
    for (auto [hull, ranges] : {std::pair(keys, &slots.keys_P), {queries, &slots.queries_P}}) {
      ranges->push_back(hull.first < 0 ? SlotRange()
                                       : SlotRange{hull.first, hull.end - hull.first});
    }
  }
  return slots;
}

// FindRingSlots needs no communicator: a view over the plans alone.
SequenceView ViewOf(const std::vector<dist::SequencePlan>& plans) {
  SequenceView view;
  const auto rows = static_cast<int64_t>(plans.size());
  int64_t tokens = 0;
  for (const auto& plan : plans) tokens = std::max(tokens, plan.tokens_per_rank);
  view.index_PBT = at::full({plans[0].ranks, rows, tokens}, -1, at::kInt);
  view.begin_PBT = at::zeros({plans[0].ranks, rows, tokens}, at::kInt);
  for (int64_t row = 0; row < rows; ++row) {
    for (int rank = 0; rank < plans[0].ranks; ++rank) {
      const auto index_T = plans[row].index(rank), begin_T = plans[row].begin(rank);
      std::copy(index_T.begin(), index_T.end(), view.index_PBT[rank][row].data_ptr<int32_t>());
      std::copy(begin_T.begin(), begin_T.end(), view.begin_PBT[rank][row].data_ptr<int32_t>());
    }
  }
  return view;
}

std::vector<int32_t> RandomBegins(int64_t tokens, uint64_t longest, Random& random) {
  std::vector<int32_t> begin_S;
  while (static_cast<int64_t>(begin_S.size()) < tokens) {
    const auto first = static_cast<int32_t>(begin_S.size());
    const size_t end = std::min(static_cast<size_t>(tokens),
                                begin_S.size() + 1 + static_cast<size_t>(random.Below(longest)));
    begin_S.resize(end, first);
  }
  return begin_S;
}

void ExpectEqual(const std::vector<SlotRange>& got, const std::vector<SlotRange>& want) {
  ASSERT_EQ(got.size(), want.size());
  for (size_t rank = 0; rank < got.size(); ++rank) {
    EXPECT_EQ(got[rank].count, want[rank].count) << rank;
    if (want[rank].count == 0) continue;
    EXPECT_EQ(got[rank].first, want[rank].first) << rank;
  }
}

TEST(RingSlotsTest, AreThoseThatTheRuleOfAttentionPairs) {
  Random random(3);
  for (const int ranks : {1, 2, 3, 5}) {
    for (const uint64_t longest : {1, 4, 20, 200}) {
      for (const auto planner : {dist::PlanZigzag, dist::PlanBalanced}) {
        const int64_t tokens = 40 + static_cast<int64_t>(random.Below(60));
        std::vector<dist::SequencePlan> plans;
        for (int row = 0; row < 2; ++row) {
          plans.push_back(planner(tokens, ranks, RandomBegins(tokens, longest, random)));
        }
        const SequenceView view = ViewOf(plans);
        const RingSlots got = FindRingSlots(view), want = Definition(view);
        ExpectEqual(got.keys_P, want.keys_P);
        ExpectEqual(got.queries_P, want.queries_P);
      }
    }
  }
}

TEST(RingSlotsTest, NothingTravelsWhereSegmentsStayWhole) {
  std::vector<int32_t> begin_S;
  for (int32_t i = 0; i < 4096; ++i) begin_S.push_back(i / 128 * 128);
  for (const int ranks : {2, 4}) {
    const RingSlots slots = FindRingSlots(ViewOf({dist::PlanBalanced(4096, ranks, begin_S)}));
    for (const SlotRange& range : slots.keys_P) EXPECT_EQ(range.count, 0);
    for (const SlotRange& range : slots.queries_P) EXPECT_EQ(range.count, 0);
  }
}

}  // namespace
}  // namespace lwm::ops
