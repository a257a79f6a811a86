#pragma once

#include <ATen/core/Tensor.h>

#include <algorithm>
#include <cstdint>
#include <functional>
#include <span>
#include <vector>

#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"

namespace lwm::ops {

// A run of slots, with the extremes of their indices and begins.
struct SlotTile {
  int64_t first = 0;
  int count = 0;
  bool any = false;    // some slot holds a token
  bool every = false;  // all do (of keys: and the tile is full)
  int32_t min_index = 0, max_index = 0;
  int32_t min_begin = 0, max_begin = 0;  // of queries
};

// How many pairs of two tiles the rule key in [begin, index] allows. From the extremes: kSome may
// turn out to be none or all, kNone and kAll are certain.
enum class Visibility { kNone, kSome, kAll };
Visibility Compare(const SlotTile& queries, const SlotTile& keys);

// How the work of one call is divided into tiles. A tile of queries is `positions` slots of
// `heads_per_tile` query heads of one kv head, in rows head * positions + slot: heads of a group
// share their keys, so one tile of K and V serves them all.
struct AttentionTiling {
  AttentionTiling(const QueryBlock& queries, const KeyBlock& keys);

  int64_t batch, tokens, heads, kv_heads, key_slots;  // B, T, H, G, U
  int positions, heads_per_tile, head_blocks;         // head_blocks * heads_per_tile >= H / G
  kernels::AttentionTileShape shape;
  std::vector<std::vector<SlotTile>> query_tiles, key_tiles;  // for each row b
  std::vector<int32_t> key_index_BU;                          // U rounded up to tiles, -1 there

  int64_t query_tile_count() const { return static_cast<int64_t>(query_tiles[0].size()); }
  int64_t key_tile_count() const { return static_cast<int64_t>(key_tiles[0].size()); }
  const int32_t* KeyIndex(int64_t b, int64_t tile) const {
    return key_index_BU.data() + (b * key_tile_count() + tile) * shape.keys;
  }
};

// Gives the queries of one tile at a time.
class QueryTile {
 public:
  QueryTile(const AttentionTiling& tiling, const QueryBlock& queries);
  void Select(int64_t b, int64_t g, int64_t head_block, int64_t tile);

  const SlotTile& slots() const { return *slots_; }
  // Pointers to the rows of x_BTHK, nullptr where the tile has none.
  std::vector<const void*> Rows(const at::Tensor& x_BTHK) const;
  // Calls fn(row of the tile, slot, head) for every query of the tile.
  template <class Fn>
  void ForEach(const Fn& fn) const {
    for (int h = 0; h < heads_; ++h) {
      for (int t = 0; t < slots_->count; ++t) {
        fn(h * tiling_.positions + t, slots_->first + t, first_head_ + h);
      }
    }
  }
  kernels::TileMask Mask(const int32_t* key_index_N) const {
    return {key_index_N, begin_R_.data(), index_R_.data()};
  }

 private:
  const AttentionTiling& tiling_;
  const int32_t *index_BT_, *begin_BT_;
  int64_t b_ = 0, first_head_ = 0;
  int heads_ = 0;
  const SlotTile* slots_ = nullptr;
  std::vector<int32_t> begin_R_, index_R_;
};

// Pointers to the rows of one tile of keys, x = k or v.
std::vector<const void*> KeyRows(const AttentionTiling& tiling, const at::Tensor& x_BUGK, int64_t b,
                                 int64_t g, int64_t tile);

// Throws unless the tensors have the shapes, types and layouts of block.h.
void CheckAttentionBlock(const QueryBlock& queries, const KeyBlock& keys, double scale);
void CheckLikeQueries(const at::Tensor& x_BTHK, const at::Tensor& q_BTHK, const char* name);
void CheckF32(const at::Tensor& x, at::IntArrayRef shape, const char* name);

// out_K = acc_K / sum in `type`, 0 where nothing was seen (sum is 0; acc_K is not read then).
// Returns lse.
float FinishQuery(kernels::TileType type, int dim, const float* acc_K, float max, float sum,
                  void* out_K);

// The kernels multiply hidden scores, -inf, by the scale, which must therefore not be 0.
inline float SafeScale(double scale) { return std::max(static_cast<float>(scale), 1e-30f); }

// Calls work() once on each thread, the calling one included; just there inside a parallel region.
void OnEachThread(const std::function<void()>& work);

// Packed copies of one side are made for as many tiles at a time as fit in this.
constexpr int64_t kPackedBytes = int64_t{64} << 20;

}  // namespace lwm::ops
