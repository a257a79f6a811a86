#pragma once

#include <cstdint>
#include <memory>
#include <optional>
#include <vector>

#include "lwm/dist/communicator.h"
#include "lwm/ops/attention_block.h"
#include "lwm/ops/ring_slots.h"
#include "lwm/ops/ring_transfer.h"
#include "lwm/ops/sequence_view.h"

namespace lwm::ops {

// The hops of one pass: who owns what, and which pairs of ranks have nothing to say to each other.
class Ring {
 public:
  Ring(SequenceView view, RingSlots slots);

  dist::Communicator& group() const { return view_.sp ? *view_.sp : *self_; }
  // One where nothing travels.
  int hops() const { return hops_; }
  int rank() const { return view_.rank(); }
  int Owner(int hop) const { return (rank() + view_.ranks() - hop) % view_.ranks(); }

  const SequenceView& view() const { return view_; }
  const RingSlots& slots() const { return slots_; }

  // Whether this rank's queries see some of the keys of a hop, or those of a hop its keys.
  bool SeesKeys(int hop) const { return hop < hops() && Sees(rank(), Owner(hop)); }
  bool IsSeen(int hop) const { return hop < hops() && Sees(Owner(hop), rank()); }
  // The last hop of which that is true, -1: none.
  int LastKeys() const;
  int LastQueries() const;

  // The slots of a rank's bundle: all of this rank's own, the sent range of the others'.
  QueryBlock Queries(int rank, const at::Tensor& q_BTHK) const {
    return {q_BTHK, Slots(view_.index_PBT, rank, slots_.queries_P),
            Slots(view_.begin_PBT, rank, slots_.queries_P)};
  }
  KeyBlock Keys(int rank, const at::Tensor& k_BTGK, const at::Tensor& v_BTGK) const {
    return {k_BTGK, v_BTGK, Slots(view_.index_PBT, rank, slots_.keys_P)};
  }

 private:
  // Smallest and largest index of the keys, smallest begin and largest index of the queries that
  // one rank holds of one row.
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

// The keys of every rank on their way round, packed by their owner where that is possible.
class TravellingKeys {
 public:
  TravellingKeys(const Ring& ring, const QueryBlock& queries, const at::Tensor& k_BTGK,
                 const at::Tensor& v_BTGK);

  // As those of TravellingBundle.
  KeyBlock Arrive(int hop);
  std::optional<KeyBlock> Next(int hop);  // those of the hop after this one
  void Progress() { bundle_->Progress(); }

 private:
  KeyBlock Block(int hop, const std::vector<at::Tensor>& bundle) const;

  const Ring& ring_;
  const KeyBlock own_;
  std::vector<SlotRange> tiles_P_;  // the sent range of each owner, if packed
  std::optional<TravellingBundle> bundle_;
};

}  // namespace lwm::ops
