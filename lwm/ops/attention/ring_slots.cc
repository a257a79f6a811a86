#include "lwm/ops/attention/ring_slots.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <span>

namespace lwm::ops {
namespace {

// The largest value of any rank and the largest of the other ranks: enough to know, for every rank,
// the largest value without it, in one pass over all slots.
struct TwoLargest {
  int32_t value = std::numeric_limits<int32_t>::min(), other = value;
  int rank = -1;

  void Add(int from, int32_t x) {
    if (from == rank) {
      value = std::max(value, x);
    } else if (x > value) {
      other = value;
      value = x;
      rank = from;
    } else {
      other = std::max(other, x);
    }
  }
  int32_t WithoutRank(int without) const { return without == rank ? other : value; }
};

void Include(SlotRange& range, int64_t slot) {
  const int64_t end = range.count ? std::max(range.first + range.count, slot + 1) : slot + 1;
  range.first = range.count ? std::min(range.first, slot) : slot;
  range.count = end - range.first;
}

// The slots of one row. A segment is named by the index of its first token. A key is needed
// elsewhere if another rank has a later token of its segment, a query has to travel if another rank
// has an earlier one: so per segment the last and first index suffice.
class Row {
 public:
  Row(const SequenceView& view, int64_t row) : view_(view), row_(row) {
    // Segments are found by the index of their first token: one entry per index of the row.
    int32_t tokens = 0;
    for (int rank = 0; rank < view.ranks(); ++rank) {
      for (const int32_t index : Slots(view.index_PBT, rank)) tokens = std::max(tokens, index + 1);
    }
    last_S_.resize(static_cast<size_t>(tokens));
    first_S_.resize(static_cast<size_t>(tokens));
    ForEach([&](int rank, int64_t, int32_t index, size_t segment) {
      last_S_[segment].Add(rank, index);
      first_S_[segment].Add(rank, -index);  // the smallest index, as the largest of the negative
    });
  }

  void AddTo(RingSlots& slots) const {
    ForEach([&](int rank, int64_t slot, int32_t index, size_t segment) {
      const auto owner = static_cast<size_t>(rank);
      // Causal: later tokens see this key, and this query sees earlier tokens.
      if (last_S_[segment].WithoutRank(rank) > index) Include(slots.keys_P[owner], slot);
      if (first_S_[segment].WithoutRank(rank) > -index) Include(slots.queries_P[owner], slot);
    });
  }

 private:
  std::span<const int32_t> Slots(const at::Tensor& x_PBT, int rank) const {
    const int64_t offset = (rank * view_.rows() + row_) * view_.tokens();
    return {x_PBT.const_data_ptr<int32_t>() + offset, static_cast<size_t>(view_.tokens())};
  }
  template <class Fn>
  void ForEach(const Fn& fn) const {
    for (int rank = 0; rank < view_.ranks(); ++rank) {
      const auto index_T = Slots(view_.index_PBT, rank), begin_T = Slots(view_.begin_PBT, rank);
      for (size_t t = 0; t < index_T.size(); ++t) {
        if (index_T[t] < 0) continue;
        fn(rank, static_cast<int64_t>(t), index_T[t], static_cast<size_t>(begin_T[t]));
      }
    }
  }

  const SequenceView& view_;
  const int64_t row_;
  std::vector<TwoLargest> last_S_, first_S_;  // at the first token of each segment; -index
};

}  // namespace

RingSlots FindRingSlots(const SequenceView& view) {
  RingSlots slots;
  slots.keys_P.resize(static_cast<size_t>(view.ranks()));
  slots.queries_P.resize(static_cast<size_t>(view.ranks()));
  if (view.ranks() == 1) return slots;
  for (int64_t row = 0; row < view.rows(); ++row) Row(view, row).AddTo(slots);
  return slots;
}

}  // namespace lwm::ops
