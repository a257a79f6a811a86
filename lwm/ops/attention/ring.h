#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/dist/communicator.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/ring_slots.h"
#include "lwm/ops/attention/ring_transfer.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::ops {

// The hops of one pass: who owns what, and which rank pairs have no attention and are skipped.
class Ring {
 public:
  Ring(SequenceView view, RingSlots slots);

  dist::Communicator& group() const { return view_.sp ? *view_.sp : *self_; }
  // 1 where no rank needs another's slots.
  int hops() const { return hops_; }
  int rank() const { return view_.rank(); }
  // Whose bundle this rank holds at a hop: bundles move to the next rank, so the owner moves back.
  int Owner(int hop) const { return (rank() + view_.ranks() - hop) % view_.ranks(); }

  const SequenceView& view() const { return view_; }
  const RingSlots& slots() const { return slots_; }

  // Whether this rank's queries may see keys of the hop's owner, and whether the owner's queries
  // may see this rank's keys.
  bool SeesKeys(int hop) const { return hop < hops() && Sees(rank(), Owner(hop)); }
  bool IsSeen(int hop) const { return hop < hops() && Sees(Owner(hop), rank()); }
  // Last hop where this is true, or -1. At that hop results are complete and are rounded.
  int LastKeys() const;
  int LastQueries() const;

  // The slots in a rank's bundle: all of this rank's own, of other ranks the range that they send.
  QueryBlock Queries(int rank, const at::Tensor& q_BTHK) const {
    return {q_BTHK, Slots(view_.index_PBT, rank, slots_.queries_P),
            Slots(view_.begin_PBT, rank, slots_.queries_P)};
  }
  KeyBlock Keys(int rank, const at::Tensor& k_BTGK, const at::Tensor& v_BTGK) const {
    return {k_BTGK, v_BTGK, Slots(view_.index_PBT, rank, slots_.keys_P)};
  }

 private:
  // One rank's share of one row: smallest index of its keys, smallest begin of its queries, and the
  // largest index, which is the same for both.
  struct Extremes {
    int32_t first_key, first_seen, last;
  };

  Extremes ExtremesOf(int rank, int64_t row) const;
  // Whether any query of one rank may see any key of the other.
  bool Sees(int query_rank, int key_rank) const;
  at::Tensor Slots(const at::Tensor& x_PBT, int rank, const std::vector<SlotRange>& range_P) const;

  const SequenceView view_;
  const RingSlots slots_;
  int hops_ = 1;
  std::unique_ptr<dist::Communicator> self_;
  std::vector<Extremes> extremes_PB_;
};

// The keys of every rank, sent round the ring; packed for the kernels by their owner if possible.
class TravellingKeys {
 public:
  TravellingKeys(const Ring& ring, const QueryBlock& queries, const at::Tensor& k_BTGK,
                 const at::Tensor& v_BTGK);

  // As Arrive and Next of TravellingBundle.
  KeyBlock Arrive(int hop);
  std::optional<KeyBlock> Next(int hop);  // the keys of hop + 1, once they are there
  void Progress() { bundle_->Progress(); }

 private:
  KeyBlock Block(int hop, const std::vector<at::Tensor>& bundle) const;

  const Ring& ring_;
  const KeyBlock own_;
  std::vector<SlotRange> tiles_P_;  // the sent range of each owner, if packed
  std::optional<TravellingBundle> bundle_;
};

}  // namespace lwm::ops
