#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <cstring>
#include <memory>
#include <utility>
#include <vector>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/scalar_tile.h"
#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/key_tiles.h"
#include "lwm/ops/attention/tile_pass.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {
namespace {

using kernels::AttentionForwardTile;

// All queries against one or two runs of keys; the places of a pass are tiles of queries.
class ForwardPass {
 public:
  ForwardPass(const AttentionTiling& tiling, const QueryBlock& queries, float scale,
              AttentionCarry& carry, const Progress& progress)
      : tiling_(tiling),
        queries_(queries),
        scale_(scale),
        progress_(progress),
        max_BHT_(carry.max_BHT.data_ptr<float>()),
        sum_BHT_(carry.sum_BHT.data_ptr<float>()),
        acc_BTHK_(carry.acc_BTHK.data_ptr<float>()) {}

  // The first `done` places see the last run of keys only: they have seen the others. An output
  // means that these are the last keys of all. Returns how many places are done, fewer than all
  // when joining keys arrived.
  int64_t Run(std::vector<KeyTiles*> keys, int64_t done, AttentionOutput* output,
              JoiningTiles<KeyTiles>* joining) {
    keys_ = std::move(keys);
    out_BTHK_ = output ? static_cast<char*>(output->out_BTHK.data_ptr()) : nullptr;
    lse_BHT_ = output ? output->lse_BHT.data_ptr<float>() : nullptr;
    return RunTilePass(PlaceCount(), tiling_.shape, progress_, joining,
                       [&](const auto& take, const auto& poll) {
                         Worker worker(*this);
                         while (const auto place = take())
                           AttendTile(worker, PlaceAt(*place), *place < done ? 1 : 0, poll);
                       });
  }

 private:
  // State of one thread: a tile of queries and its running softmax.
  struct Worker {
    explicit Worker(const ForwardPass& pass)
        : kernel(kernels::ThreadForwardTile(pass.tiling_.shape)),
          tile(pass.tiling_, pass.queries_),
          max_R(static_cast<size_t>(pass.tiling_.shape.rows)),
          sum_R(max_R.size()),
          acc_RK(kernels::MakeAlignedBuffer<float>(max_R.size() * pass.Dim())),
          packed_queries(kernels::MakeAlignedBuffer<char>(
              AttentionForwardTile::PackedQueryBytes(pass.tiling_.shape))) {}

    kernels::SoftmaxState Softmax() {
      return {.max_R = max_R.data(), .sum_R = sum_R.data(), .acc_RK = acc_RK.get()};
    }

    AttentionForwardTile& kernel;
    QueryTile tile;
    std::vector<float> max_R, sum_R;
    kernels::AlignedBuffer<float> acc_RK;
    kernels::AlignedBuffer<char> packed_queries;
    std::vector<const void*> rows;
  };

  // A tile of queries of one row and kv head.
  struct Place {
    int64_t b, g, head_block, query_tile;
  };
  // A tile of keys; keys == keys_.size() is none.
  struct KeyPlace {
    size_t keys;
    int64_t tile;
  };

  size_t Dim() const { return static_cast<size_t>(tiling_.shape.padded_dim()); }
  int64_t PlaceCount() const {
    return tiling_.batch * tiling_.kv_heads * tiling_.head_blocks * tiling_.query_tile_count();
  }

  // Heads are the inner loop, tiles of queries the outer one. Late tiles see most keys and go
  // first: a long tile at the end would leave threads idle.
  Place PlaceAt(int64_t i) const {
    const int64_t blocks = tiling_.head_blocks, kv_heads = tiling_.kv_heads;
    const int64_t per_tile = tiling_.batch * kv_heads * blocks;
    return {i % per_tile / (kv_heads * blocks), i / blocks % kv_heads, i % blocks,
            tiling_.query_tile_count() - 1 - i / per_tile};
  }

  // The first that the queries see from `from` on.
  KeyPlace NextSeen(const Place& place, KeyPlace from) const {
    while (from.keys < keys_.size()) {
      const KeyTiles& keys = *keys_[from.keys];
      from.tile = keys.NextSeen(place.b, place.query_tile, from.tile);
      if (from.tile < keys.last()) break;
      ++from.keys;
      if (from.keys < keys_.size()) from.tile = keys_[from.keys]->first();
    }
    return from;
  }

  template <class Poll>
  void AttendTile(Worker& worker, const Place& place, size_t first_keys, const Poll& poll) {
    // A tile that sees no key still needs its output, if these are the last keys.
    KeyPlace at = NextSeen(place, {first_keys, keys_[first_keys]->first()});
    if (at.keys == keys_.size() && !out_BTHK_) return;
    worker.tile.Select(place.b, place.g, place.head_block, place.query_tile);
    Load(worker, place.b);
    if (at.keys < keys_.size()) PackQueries(worker);
    while (at.keys < keys_.size()) {
      const KeyPlace next = NextSeen(place, {at.keys, at.tile + 1});
      AttendPair(worker, place, at, next);
      poll();
      at = next;
    }
    if (out_BTHK_) {
      Finish(worker, place.b);
    } else {
      Store(worker, place.b);
    }
  }

  void AttendPair(Worker& worker, const Place& place, KeyPlace at, KeyPlace next) {
    KeyTiles& keys = *keys_[at.keys];
    const int64_t b = place.b, g = place.g;
    const Visibility seen = keys.Seen(b, place.query_tile, at.tile);
    const kernels::TileMask mask = worker.tile.Mask(keys.Index(b, at.tile));
    keys.Pack(worker.kernel, b, g, at.tile);
    // A hidden v has weight 0, but 0 x NaN would poison the tile: such pairs take the scalar tile.
    // A non-finite q stays in its own row, and where all see the key it belongs in every sum.
    if (seen == Visibility::kSome && !keys.Finite(b, g, at.tile)) {
      const KeyTiles::Rows rows = keys.RowsOf(b, g, at.tile);
      kernels::ScalarTileForward(tiling_.shape, {worker.rows.data(), nullptr},
                                 {rows.k.data(), rows.v.data()}, scale_, mask, worker.Softmax());
      return;
    }
    // The kernel prefetches the next tile of keys; one that nobody has packed yet is not in memory.
    const char* packed_next = nullptr;
    if (next.keys < keys_.size() && keys_[next.keys]->IsPacked(b, g, next.tile)) {
      packed_next = keys_[next.keys]->Packed(b, g, next.tile);
    }
    worker.kernel.Run(worker.packed_queries.get(), keys.Packed(b, g, at.tile), packed_next, scale_,
                      seen == Visibility::kAll ? nullptr : &mask, worker.Softmax());
  }

  int64_t Stat(int64_t b, int64_t head, int64_t slot) const {
    return (b * tiling_.heads + head) * tiling_.tokens + slot;
  }
  // Offset of the query's first number in [B,T,H,K].
  int64_t At(int64_t b, int64_t head, int64_t slot) const {
    return ((b * tiling_.tokens + slot) * tiling_.heads + head) * tiling_.shape.head_dim;
  }

  // Once per tile of queries, for all tiles of keys that it meets.
  void PackQueries(Worker& worker) const {
    worker.rows = worker.tile.Rows(queries_.q_BTHK);
    worker.kernel.PackQueries({worker.rows.data(), nullptr}, worker.packed_queries.get());
  }

  // Copies the carry into rows of the tile. Rows without a query are 0, so that the kernel computes
  // finite numbers for them.
  void Load(Worker& worker, int64_t b) const {
    std::fill(worker.max_R.begin(), worker.max_R.end(), 0.0f);
    std::fill(worker.sum_R.begin(), worker.sum_R.end(), 0.0f);
    std::fill_n(worker.acc_RK.get(), worker.max_R.size() * Dim(), 0.0f);
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const float sum = sum_BHT_[Stat(b, head, slot)];
      worker.max_R[static_cast<size_t>(row)] = max_BHT_[Stat(b, head, slot)];
      worker.sum_R[static_cast<size_t>(row)] = sum;
      if (sum == 0.0f) return;  // acc is undefined
      std::copy_n(acc_BTHK_ + At(b, head, slot), tiling_.shape.head_dim,
                  worker.acc_RK.get() + static_cast<size_t>(row) * Dim());
    });
  }

  void Store(const Worker& worker, int64_t b) const {
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      max_BHT_[Stat(b, head, slot)] = worker.max_R[static_cast<size_t>(row)];
      sum_BHT_[Stat(b, head, slot)] = worker.sum_R[static_cast<size_t>(row)];
      std::copy_n(worker.acc_RK.get() + static_cast<size_t>(row) * Dim(), tiling_.shape.head_dim,
                  acc_BTHK_ + At(b, head, slot));
    });
  }

  void Finish(const Worker& worker, int64_t b) const {
    const auto element = static_cast<int64_t>(kernels::BytesPerElement(tiling_.shape.type));
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const float max = worker.max_R[static_cast<size_t>(row)];
      const float sum = worker.sum_R[static_cast<size_t>(row)];
      max_BHT_[Stat(b, head, slot)] = max;
      sum_BHT_[Stat(b, head, slot)] = sum;
      lse_BHT_[Stat(b, head, slot)] =
          FinishQuery(tiling_.shape.type, tiling_.shape.head_dim,
                      worker.acc_RK.get() + static_cast<size_t>(row) * Dim(), max, sum,
                      out_BTHK_ + At(b, head, slot) * element);
    });
  }

  const AttentionTiling& tiling_;
  const QueryBlock& queries_;
  const float scale_;
  const Progress& progress_;
  float *max_BHT_, *sum_BHT_, *acc_BTHK_;
  std::vector<KeyTiles*> keys_;
  char* out_BTHK_ = nullptr;  // with lse: nullptr unless these are the last keys
  float* lse_BHT_ = nullptr;
};

JoiningTiles<KeyTiles> KeysOf(const NextKeys& next, const QueryBlock& queries) {
  const auto block = std::make_shared<const KeyBlock*>(nullptr);
  return {[&, block]() -> std::unique_ptr<AttentionTiling> {
            *block = next.arrived();
            if (!*block) return nullptr;
            CheckAttentionBlock(queries, **block, 0);
            return std::make_unique<AttentionTiling>(queries, **block);
          },
          [block](const AttentionTiling& tiling) -> std::unique_ptr<KeyTiles> {
            const int64_t tiles = tiling.key_tile_count();
            if (tiles > TilesPerPass(tiling)) return nullptr;
            return std::make_unique<KeyTiles>(tiling, **block, 0, tiles);
          }};
}

// Made before the pass: threads write their queries' results as they finish them.
void Prepare(const QueryBlock& queries, AttentionOutput* output) {
  if (!output) return;
  const at::Tensor& q = queries.q_BTHK;
  output->out_BTHK = at::empty(q.sizes(), at::TensorOptions(q.scalar_type()));
  output->lse_BHT = at::empty({q.size(0), q.size(2), q.size(1)}, at::TensorOptions(at::kFloat));
}

}  // namespace

bool AttentionBlockForward(const QueryBlock& queries, const KeyBlock& keys, double scale,
                           AttentionCarry& carry, const Progress& progress, AttentionOutput* output,
                           const NextKeys* next) {
  CheckAttentionBlock(queries, keys, scale);
  const at::Tensor& q = queries.q_BTHK;
  CheckF32(carry.acc_BTHK, q.sizes(), "carry.acc");
  CheckF32(carry.max_BHT, {q.size(0), q.size(2), q.size(1)}, "carry.max");
  CheckF32(carry.sum_BHT, {q.size(0), q.size(2), q.size(1)}, "carry.sum");
  if (q.numel() == 0 || keys.slots() == 0) {
    if (output) FinishAttention(carry, q.scalar_type(), output->out_BTHK, output->lse_BHT);
    return false;
  }
  Prepare(queries, output);
  const AttentionTiling tiling(queries, keys);
  ForwardPass pass(tiling, queries, SafeScale(scale), carry, progress);
  // Packed keys of one pass stay within 64 MiB. Only the last pass finishes queries, and joins
  // keys.
  const int64_t step = TilesPerPass(tiling), tiles = tiling.key_tile_count();
  int64_t first = 0;
  for (; first + step < tiles; first += step) {
    KeyTiles some(tiling, keys, first, first + step);
    pass.Run({&some}, 0, nullptr, nullptr);
  }
  KeyTiles rest(tiling, keys, first, tiles);
  if (!next) {
    pass.Run({&rest}, 0, output, nullptr);
    return false;
  }
  JoiningTiles<KeyTiles> joining = KeysOf(*next, queries);
  const int64_t done = pass.Run({&rest}, 0, output, &joining);
  if (!joining.there()) return false;
  Prepare(queries, next->output);
  pass.Run({&rest, &joining.tiles()}, done, next->output, nullptr);
  return true;
}

}  // namespace lwm::ops
