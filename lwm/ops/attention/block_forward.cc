#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <memory>
#include <thread>
#include <vector>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/scalar_tile.h"
#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/key_tiles.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {
namespace {

using kernels::AttentionForwardTile;

// The next hop's keys, which join a pass when they arrive. Taken by the calling thread, which is
// the one that may call MPI; the others see them through there_.
class JoiningKeys {
 public:
  JoiningKeys(const QueryBlock& queries, const NextKeys* next) : queries_(queries), next_(next) {}

  // On the calling thread. Keys that need tiles of another shape, or several passes, do not join.
  void Poll(const kernels::AttentionTileShape& shape) {
    if (!next_ || tiling_) return;
    const KeyBlock* keys = next_->arrived();
    if (!keys) return;
    CheckAttentionBlock(queries_, *keys, 0);
    tiling_ = std::make_unique<AttentionTiling>(queries_, *keys);
    if (tiling_->shape != shape || tiling_->key_tile_count() > TilesPerPass(*tiling_)) return;
    tiles_ = std::make_unique<KeyTiles>(*tiling_, *keys, 0, tiling_->key_tile_count());
    there_ = true;
  }
  // Any thread.
  bool there() const { return there_; }

  KeyTiles& tiles() { return *tiles_; }
  AttentionOutput* output() const { return next_->output; }

 private:
  const QueryBlock& queries_;
  const NextKeys* next_;
  std::unique_ptr<AttentionTiling> tiling_;
  std::unique_ptr<KeyTiles> tiles_;
  std::atomic<bool> there_{false};
};

// All queries against one or two runs of keys. Threads take tiles of queries from one counter. If
// the next hop's keys arrive during the pass, it ends early, and a second pass gives the tiles of
// queries that were not done both runs of keys, the others the new run only. So the carry of most
// tiles is read and written once for two hops, and each query still sees its keys in the same
// order.
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

  // An output means that these are the last keys of all. Ends early when the joining keys are
  // there. Returns how many tiles of queries are done, counted in the order of the pass.
  int64_t Run(KeyTiles& keys, AttentionOutput* output, JoiningKeys* joining) {
    keys_ = {&keys};
    return Run(0, output, joining);
  }
  // The remaining tiles of queries see both runs of keys, the `done` first ones the joining run
  // only.
  void RunJoined(KeyTiles& keys, JoiningKeys& joining, int64_t done) {
    keys_ = {&keys, &joining.tiles()};
    Run(done, joining.output(), nullptr);
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

  int64_t Run(int64_t skip_first_keys, AttentionOutput* output, JoiningKeys* joining) {
    out_BTHK_ = output ? static_cast<char*>(output->out_BTHK.data_ptr()) : nullptr;
    lse_BHT_ = output ? output->lse_BHT.data_ptr<float>() : nullptr;
    next_ = 0;
    const std::thread::id caller = std::this_thread::get_id();
    OnEachThread([&] {
      const bool polls = std::this_thread::get_id() == caller;
      Attend(skip_first_keys, joining, [&] {
        if (polls && progress_) progress_();
        if (polls && joining) joining->Poll(tiling_.shape);
      });
    });
    return std::min<int64_t>(next_, PlaceCount());
  }

  size_t Dim() const { return static_cast<size_t>(tiling_.shape.padded_dim()); }
  int64_t PlaceCount() const {
    return tiling_.batch * tiling_.kv_heads * tiling_.head_blocks * tiling_.query_tile_count();
  }

  template <class Poll>
  void Attend(int64_t skip_first_keys, const JoiningKeys* joining, const Poll& poll) {
    Worker worker(*this);
    const int64_t blocks = tiling_.head_blocks, tiles = tiling_.query_tile_count();
    const int64_t per_tile = tiling_.batch * tiling_.kv_heads * blocks;
    while (!joining || !joining->there()) {
      const int64_t i = next_++;
      if (i >= PlaceCount()) return;
      // Heads are the inner loop, tiles of queries the outer one. Late tiles see most keys and go
      // first: a long tile at the end would leave threads idle.
      const Place place{i % per_tile / (tiling_.kv_heads * blocks), i / blocks % tiling_.kv_heads,
                        i % blocks, tiles - 1 - i / per_tile};
      AttendTile(worker, place, i < skip_first_keys ? 1 : 0, poll);
    }
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
                                 {rows.k.data(), rows.v.data()}, scale_, mask, worker.max_R.data(),
                                 worker.sum_R.data(), worker.acc_RK.get());
      return;
    }
    // The kernel prefetches the next tile of keys; one that nobody has packed yet is not in memory.
    const char* packed_next = nullptr;
    if (next.keys < keys_.size() && keys_[next.keys]->IsPacked(b, g, next.tile)) {
      packed_next = keys_[next.keys]->Packed(b, g, next.tile);
    }
    worker.kernel.Run(worker.packed_queries.get(), keys.Packed(b, g, at.tile), packed_next, scale_,
                      seen == Visibility::kAll ? nullptr : &mask, worker.max_R.data(),
                      worker.sum_R.data(), worker.acc_RK.get());
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
  std::atomic<int64_t> next_{0};
};

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
    pass.Run(some, nullptr, nullptr);
  }
  KeyTiles rest(tiling, keys, first, tiles);
  JoiningKeys joining(queries, next);
  const int64_t done = pass.Run(rest, output, next ? &joining : nullptr);
  if (!joining.there()) return false;
  Prepare(queries, joining.output());
  pass.RunJoined(rest, joining, done);
  return true;
}

}  // namespace lwm::ops
