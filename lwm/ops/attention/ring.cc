#include "lwm/ops/attention/ring.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <utility>

#include "lwm/ops/attention/key_tiles.h"

namespace lwm::ops {
namespace {

// The tiles that hold the slots.
SlotRange TilesOf(const SlotRange& slots, int64_t tile_keys) {
  if (slots.count == 0) return {};
  const int64_t first = slots.first / tile_keys;
  return {first, (slots.first + slots.count + tile_keys - 1) / tile_keys - first};
}

// Packed once by their owner instead of P times by every rank (docs/adr/0011). Only where all ranks
// use the same kernels: the layout is theirs. With one hop nothing is sent, and the forward pass
// packs tiles as it needs them.
KeyBlock OwnKeys(const Ring& ring, const QueryBlock& queries, const at::Tensor& k_BTGK,
                 const at::Tensor& v_BTGK) {
  KeyBlock keys = ring.Keys(ring.rank(), k_BTGK, v_BTGK);
  if (ring.hops() > 1 && ring.view().same_packed_layout) keys.packed = PackKeys(queries, keys);
  return keys;
}

}  // namespace

Ring::Ring(SequenceView view, RingSlots slots) : view_(std::move(view)), slots_(std::move(slots)) {
  if (!view_.sp) self_ = dist::MakeSelfCommunicator();
  // If any rank needs another's keys, all take part in all hops: a rank that needs none still
  // passes the bundles on. Every rank comes to the same number, since all see the same slots.
  for (const SlotRange& range : slots_.keys_P) {
    if (range.count > 0) hops_ = view_.ranks();
  }
  for (int rank = 0; rank < view_.ranks(); ++rank) {
    for (int64_t row = 0; row < view_.rows(); ++row) extremes_PB_.push_back(ExtremesOf(rank, row));
  }
}

// Hop 0, own keys, counts. -1 if this rank's queries see no key.
int Ring::LastKeys() const {
  int hop = hops() - 1;
  while (hop >= 0 && !SeesKeys(hop)) --hop;
  return hop;
}

int Ring::LastQueries() const {
  int hop = hops() - 1;
  while (hop >= 0 && !IsSeen(hop)) --hop;
  return hop;
}

Ring::Extremes Ring::ExtremesOf(int rank, int64_t row) const {
  constexpr int32_t kLargest = std::numeric_limits<int32_t>::max();
  Extremes extremes{kLargest, kLargest, -1};
  const int64_t offset = (rank * view_.rows() + row) * view_.tokens();
  const int32_t* index_T = view_.index_PBT.const_data_ptr<int32_t>() + offset;
  const int32_t* begin_T = view_.begin_PBT.const_data_ptr<int32_t>() + offset;
  for (int64_t t = 0; t < view_.tokens(); ++t) {
    if (index_T[t] < 0) continue;
    extremes.first_key = std::min(extremes.first_key, index_T[t]);
    extremes.first_seen = std::min(extremes.first_seen, begin_T[t]);
    extremes.last = std::max(extremes.last, index_T[t]);
  }
  return extremes;
}

// By the extremes of each row, so true may be wrong: the tiles then find nothing. False is certain.
// Between ranks, a range without slots means that nothing was sent.
bool Ring::Sees(int query_rank, int key_rank) const {
  if (query_rank != key_rank && (slots_.keys_P[static_cast<size_t>(key_rank)].count == 0 ||
                                 slots_.queries_P[static_cast<size_t>(query_rank)].count == 0)) {
    return false;
  }
  for (int64_t row = 0; row < view_.rows(); ++row) {
    const Extremes& queries = extremes_PB_[query_rank * view_.rows() + row];
    const Extremes& keys = extremes_PB_[key_rank * view_.rows() + row];
    if (keys.first_key <= queries.last && queries.first_seen <= keys.last) return true;
  }
  return false;
}

at::Tensor Ring::Slots(const at::Tensor& x_PBT, int rank,
                       const std::vector<SlotRange>& range_P) const {
  // This rank's own tensor has all slots; copies of other ranks' have the range that was sent.
  if (rank == view_.rank()) return x_PBT[rank];
  const SlotRange& range = range_P[static_cast<size_t>(rank)];
  return x_PBT[rank].narrow(1, range.first, range.count).contiguous();
}

TravellingKeys::TravellingKeys(const Ring& ring, const QueryBlock& queries,
                               const at::Tensor& k_BTGK, const at::Tensor& v_BTGK)
    : ring_(ring), own_(OwnKeys(ring, queries, k_BTGK, v_BTGK)) {
  const std::vector<SlotRange>& slots_P = ring.slots().keys_P;
  const PackedKeys& packed = own_.packed;
  if (!packed.defined()) {
    bundle_.emplace(ring.group(), std::vector<CirculatedTensor>{{k_BTGK}, {v_BTGK}}, slots_P);
    return;
  }
  // Whole tiles are sent, with unneeded keys at both ends; masks treat them like any others.
  for (const SlotRange& slots : slots_P) tiles_P_.push_back(TilesOf(slots, packed.tile_keys()));
  bundle_.emplace(ring.group(),
                  std::vector<CirculatedTensor>{{packed.tiles_NBG2UK, /*slot_dim=*/0},
                                                {packed.finite_NBG, /*slot_dim=*/0}},
                  tiles_P_);
}

KeyBlock TravellingKeys::Arrive(int hop) {
  const auto& bundle = bundle_->Arrive(hop);
  return hop == 0 ? own_ : Block(hop, bundle);
}

std::optional<KeyBlock> TravellingKeys::Next(int hop) {
  const auto* bundle = bundle_->Next();
  return bundle ? std::optional(Block(hop + 1, *bundle)) : std::nullopt;
}

KeyBlock TravellingKeys::Block(int hop, const std::vector<at::Tensor>& bundle) const {
  const int owner = ring_.Owner(hop);
  if (!own_.packed.defined()) return ring_.Keys(owner, bundle[0], bundle[1]);
  const SlotRange& tiles = tiles_P_[static_cast<size_t>(owner)];
  const int64_t tile_keys = own_.packed.tile_keys(), first = tiles.first * tile_keys;
  // The last tile is padded beyond the owner's slots; indices end with the slots.
  const int64_t count = std::min(tiles.count * tile_keys, ring_.view().tokens() - first);
  return {{},
          {},
          ring_.view().index_PBT[owner].narrow(1, first, count).contiguous(),
          {bundle[0], bundle[1]}};
}

}  // namespace lwm::ops
