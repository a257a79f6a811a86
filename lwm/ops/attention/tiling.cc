#include "lwm/ops/attention/tiling.h"

#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

#include "lwm/base/error.h"
#include "lwm/base/round_up.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::ops {
namespace {

// The smallest of a few sizes that holds `wanted`: each shape of tile has kernels and scratch of
// its own on every thread, so few shapes should ever be made.
int PickSize(int64_t wanted, int largest) {
  int size = 64;
  while (size < wanted && size < largest) size *= 2;
  return size;
}

std::vector<SlotTile> TileSlots(std::span<const int32_t> index, const int32_t* begin,
                                int tile_slots) {
  std::vector<SlotTile> tiles;
  for (size_t first = 0; first < index.size(); first += static_cast<size_t>(tile_slots)) {
    SlotTile tile;
    tile.first = static_cast<int64_t>(first);
    tile.count = static_cast<int>(std::min(index.size() - first, static_cast<size_t>(tile_slots)));
    int held = 0;
    for (size_t i = first; i < first + static_cast<size_t>(tile.count); ++i) {
      if (index[i] < 0) continue;
      const int32_t from = begin ? begin[i] : 0;
      tile.min_index = held ? std::min(tile.min_index, index[i]) : index[i];
      tile.max_index = held ? std::max(tile.max_index, index[i]) : index[i];
      tile.min_begin = held ? std::min(tile.min_begin, from) : from;
      tile.max_begin = held ? std::max(tile.max_begin, from) : from;
      ++held;
    }
    tile.any = held > 0;
    // Padding keys of a last tile must be masked. Padding queries need not: their results are
    // dropped, and their weights in the backward pass are 0.
    tile.every = held == (begin ? tile.count : tile_slots);
    tiles.push_back(tile);
  }
  return tiles;
}

void CheckSlots(const at::Tensor& x, int64_t rows, int64_t slots, const char* name) {
  LWM_REQUIRE(x.scalar_type() == at::kInt && x.is_contiguous() && x.dim() == 2 &&
                  x.size(0) == rows && x.size(1) == slots,
              "attention: ", name, " must be contiguous i32 [", rows, ", ", slots, "], got ",
              x.scalar_type(), " ", x.sizes());
}

void CheckContiguousHeadDim(const at::Tensor& x) {
  LWM_REQUIRE(x.numel() == 0 || x.size(3) == 1 || x.stride(3) == 1,
              "attention: the last dimension of q, k and v must be contiguous, got strides ",
              x.strides());
}

void CheckKeysInRows(const at::Tensor& q, const KeyBlock& keys) {
  const at::Tensor &k = keys.k_BUGK, &v = keys.v_BUGK;
  LWM_REQUIRE(k.scalar_type() == q.scalar_type() && v.scalar_type() == q.scalar_type(),
              "attention: k and v must have the type of q, ", q.scalar_type(), ", got ",
              k.scalar_type(), " and ", v.scalar_type());
  LWM_REQUIRE(
      k.dim() == 4 && k.sizes() == v.sizes() && q.size(0) == k.size(0) && q.size(3) == k.size(3),
      "attention: want q [batch,tokens,heads,dim], k and v [batch,keys,kv heads,dim], got q ",
      q.sizes(), " k ", k.sizes(), " v ", v.sizes());
  CheckContiguousHeadDim(k);
  CheckContiguousHeadDim(v);
  CheckSlots(keys.index_BU, k.size(0), k.size(1), "key index");
}

void CheckPackedKeys(const at::Tensor& q, const KeyBlock& keys) {
  const PackedKeys& packed = keys.packed;
  const at::Tensor &tiles = packed.tiles_NBG2UK, &finite = packed.finite_NBG;
  LWM_REQUIRE(q.scalar_type() == at::kBFloat16 && tiles.scalar_type() == at::kBFloat16 &&
                  tiles.dim() == 6 && tiles.is_contiguous() && tiles.size(1) == q.size(0) &&
                  tiles.size(3) == 2 && tiles.size(5) == (q.size(3) + 31) / 32 * 32 &&
                  finite.scalar_type() == at::kByte && finite.is_contiguous() &&
                  finite.sizes() == tiles.sizes().slice(0, 3),
              "attention: keys that are packed do not belong to q ", q.scalar_type(), " ",
              q.sizes(), ": got ", tiles.scalar_type(), " ", tiles.sizes());
  const int64_t slots = keys.index_BU.size(1), room = tiles.size(0) * tiles.size(4);
  LWM_REQUIRE(slots <= room && room - slots < tiles.size(4), "attention: ", tiles.size(0),
              " packed tiles of ", tiles.size(4), " keys for ", slots, " slots");
  CheckSlots(keys.index_BU, q.size(0), slots, "key index");
}

}  // namespace

// Two integers per token replace a mask, and four per tile decide most pairs: with causal rows only
// the tiles on the diagonal are compared element by element, in packed rows the edges of segments.
Visibility Compare(const SlotTile& queries, const SlotTile& keys) {
  if (!queries.any || !keys.any || keys.min_index > queries.max_index ||
      keys.max_index < queries.min_begin) {
    return Visibility::kNone;
  }
  const bool all = queries.every && keys.every && keys.max_index <= queries.min_index &&
                   keys.min_index >= queries.max_begin;
  return all ? Visibility::kAll : Visibility::kSome;
}

AttentionTiling::AttentionTiling(const QueryBlock& queries, const KeyBlock& keys)
    : batch(queries.q_BTHK.size(0)),
      tokens(queries.q_BTHK.size(1)),
      heads(queries.q_BTHK.size(2)),
      kv_heads(keys.kv_heads()),
      key_slots(keys.slots()) {
  // At head dim 128 in bf16, K and V of a tile take 256 KiB, its queries and f32 accumulator 192
  // KiB: together less than a second-level cache of 1 or 2 MiB. Larger tiles of keys mean fewer
  // loads of the accumulator, larger tiles of queries fewer loads of keys.
  constexpr int kRows = 256, kKeys = 512;
  // All heads of a group in one tile if that leaves at least 32 positions; otherwise blocks of
  // heads.
  const int64_t group = heads / kv_heads;
  positions = static_cast<int>(
      std::min<int64_t>(std::max<int64_t>(kRows / group, 32) / 16 * 16, RoundUp(tokens, 16)));
  heads_per_tile = static_cast<int>(std::min<int64_t>(group, std::max(1, kRows / positions)));
  head_blocks = static_cast<int>((group + heads_per_tile - 1) / heads_per_tile);
  shape.type = queries.q_BTHK.scalar_type() == at::kFloat ? kernels::TileType::kF32
                                                          : kernels::TileType::kBF16;
  shape.kernel = kernels::BestTileKernel(shape.type);
  shape.rows = PickSize(static_cast<int64_t>(heads_per_tile) * positions, kRows);
  shape.head_dim = static_cast<int>(queries.q_BTHK.size(3));
  shape.keys = keys.packed.defined() ? keys.packed.tile_keys() : PickSize(key_slots, kKeys);

  // Padded with -1, so that kernels can load the indices of a whole tile.
  const int64_t padded_slots = RoundUp(key_slots, shape.keys);
  key_index_BU.assign(static_cast<size_t>(batch * padded_slots), -1);
  const int32_t* key_index = keys.index_BU.const_data_ptr<int32_t>();
  for (int64_t b = 0; b < batch; ++b) {
    const std::span row(key_index + b * key_slots, static_cast<size_t>(key_slots));
    std::copy(row.begin(), row.end(), key_index_BU.begin() + b * padded_slots);
    key_tiles.push_back(TileSlots(row, nullptr, shape.keys));
    query_tiles.push_back(TileSlots(
        {queries.index_BT.const_data_ptr<int32_t>() + b * tokens, static_cast<size_t>(tokens)},
        queries.begin_BT.const_data_ptr<int32_t>() + b * tokens, positions));
  }
}

QueryTile::QueryTile(const AttentionTiling& tiling, const QueryBlock& queries)
    : tiling_(tiling),
      index_BT_(queries.index_BT.const_data_ptr<int32_t>()),
      begin_BT_(queries.begin_BT.const_data_ptr<int32_t>()),
      begin_R_(static_cast<size_t>(tiling.shape.rows)),
      index_R_(static_cast<size_t>(tiling.shape.rows)) {}

void QueryTile::Select(int64_t b, int64_t g, int64_t head_block, int64_t tile) {
  const int64_t group = tiling_.heads / tiling_.kv_heads;
  const int64_t head_in_group = head_block * tiling_.heads_per_tile;
  b_ = b;
  first_head_ = g * group + head_in_group;
  heads_ = static_cast<int>(std::min<int64_t>(tiling_.heads_per_tile, group - head_in_group));
  slots_ = &tiling_.query_tiles[static_cast<size_t>(b)][static_cast<size_t>(tile)];
  // Rows beyond the tile's queries see nothing: index -1, begin 0.
  std::fill(begin_R_.begin(), begin_R_.end(), 0);
  std::fill(index_R_.begin(), index_R_.end(), -1);
  ForEach([&](int row, int64_t slot, int64_t) {
    index_R_[static_cast<size_t>(row)] = index_BT_[b * tiling_.tokens + slot];
    begin_R_[static_cast<size_t>(row)] = begin_BT_[b * tiling_.tokens + slot];
  });
}

std::vector<const void*> QueryTile::Rows(const at::Tensor& x_BTHK) const {
  std::vector<const void*> rows(static_cast<size_t>(tiling_.shape.rows), nullptr);
  const char* data = static_cast<const char*>(x_BTHK.const_data_ptr());
  const int64_t element = x_BTHK.element_size();
  ForEach([&](int row, int64_t slot, int64_t head) {
    const int64_t at = b_ * x_BTHK.stride(0) + slot * x_BTHK.stride(1) + head * x_BTHK.stride(2);
    rows[static_cast<size_t>(row)] = data + at * element;
  });
  return rows;
}

std::vector<const void*> KeyRows(const AttentionTiling& tiling, const at::Tensor& x_BUGK, int64_t b,
                                 int64_t g, int64_t tile) {
  std::vector<const void*> rows(static_cast<size_t>(tiling.shape.keys), nullptr);
  const SlotTile& slots = tiling.key_tiles[static_cast<size_t>(b)][static_cast<size_t>(tile)];
  const char* data = static_cast<const char*>(x_BUGK.const_data_ptr());
  const int64_t first =
      b * x_BUGK.stride(0) + slots.first * x_BUGK.stride(1) + g * x_BUGK.stride(2);
  for (int n = 0; n < slots.count; ++n) {
    rows[static_cast<size_t>(n)] = data + (first + n * x_BUGK.stride(1)) * x_BUGK.element_size();
  }
  return rows;
}

void CheckLikeQueries(const at::Tensor& x_BTHK, const at::Tensor& q_BTHK, const char* name) {
  LWM_REQUIRE(x_BTHK.scalar_type() == q_BTHK.scalar_type() && x_BTHK.sizes() == q_BTHK.sizes() &&
                  (x_BTHK.numel() == 0 || x_BTHK.size(3) == 1 || x_BTHK.stride(3) == 1),
              "attention: ", name, " must be like q, ", q_BTHK.scalar_type(), " ", q_BTHK.sizes(),
              " with a contiguous last dimension, got ", x_BTHK.scalar_type(), " ", x_BTHK.sizes());
}

void CheckF32(const at::Tensor& x, at::IntArrayRef shape, const char* name) {
  LWM_REQUIRE(x.scalar_type() == at::kFloat && x.sizes() == shape && x.is_contiguous(),
              "attention: ", name, " must be contiguous f32 ", shape, ", got ", x.scalar_type(),
              " ", x.sizes());
}

void CheckAttentionBlock(const QueryBlock& queries, const KeyBlock& keys, double scale) {
  const at::Tensor& q = queries.q_BTHK;
  LWM_REQUIRE(q.scalar_type() == at::kFloat || q.scalar_type() == at::kBFloat16,
              "attention: q must be f32 or bf16, got ", q.scalar_type());
  LWM_REQUIRE(q.dim() == 4 && q.size(3) >= 1 && q.size(3) <= 1024,
              "attention: want q [batch,tokens,heads,dim] with a head dim of 1 to 1024, got ",
              q.sizes());
  CheckContiguousHeadDim(q);
  CheckSlots(queries.index_BT, q.size(0), q.size(1), "query index");
  CheckSlots(queries.begin_BT, q.size(0), q.size(1), "query begin");
  keys.packed.defined() ? CheckPackedKeys(q, keys) : CheckKeysInRows(q, keys);
  LWM_REQUIRE(keys.kv_heads() > 0 && q.size(2) % keys.kv_heads() == 0, "attention: ", q.size(2),
              " query heads must be a multiple of the kv heads, got ", keys.kv_heads());
  LWM_REQUIRE(std::isfinite(scale) && scale >= 0,
              "attention: the scale of the scores must be finite and not negative, got ", scale);
}

// A grain of 1 gives each thread one index. Inside a parallel region LibTorch runs nested loops on
// the calling thread only.
void OnEachThread(const std::function<void()>& work) {
  const int64_t threads = at::in_parallel_region() ? 1 : at::get_num_threads();
  at::parallel_for(0, threads, 1, [&](int64_t, int64_t) { work(); });
}

// The only division by the sum and the only rounding of a query's output, after its last key.
float FinishQuery(kernels::TileType type, int dim, const float* acc_K, float max, float sum,
                  void* out_K) {
  if (sum == 0.0f) {
    std::memset(out_K, 0, static_cast<size_t>(dim) * kernels::BytesPerElement(type));
    return -std::numeric_limits<float>::infinity();
  }
  kernels::ScaleRowTo(type, acc_K, dim, 1.0f / sum, out_K);
  return max + std::log(sum);
}

}  // namespace lwm::ops
