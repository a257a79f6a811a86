#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <thread>
#include <vector>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention_careful.h"
#include "lwm/kernels/attention_tile.h"
#include "lwm/ops/attention_block.h"
#include "lwm/ops/attention_tiling.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

// The keys of tiles [first, last) of every batch row and kv head, against all queries. With an
// output, these are the last keys of all.
class ForwardPass {
 public:
  ForwardPass(const AttentionTiling& tiling, const QueryBlock& queries, const KeyBlock& keys,
              float scale, AttentionCarry& carry, AttentionOutput* output, int64_t first,
              int64_t last)
      : tiling_(tiling),
        queries_(queries),
        keys_(keys),
        scale_(scale),
        first_(first),
        last_(last),
        key_bytes_(kernels::AttentionForwardTile::PackedKeyBytes(tiling.shape)),
        packed_(PackedCount() * key_bytes_),
        finite_(PackedCount()),
        packing_(PackedCount()),
        max_BHT_(carry.max_BHT.data_ptr<float>()),
        sum_BHT_(carry.sum_BHT.data_ptr<float>()),
        acc_BTHK_(carry.acc_BTHK.data_ptr<float>()),
        out_BTHK_(output ? static_cast<char*>(output->out_BTHK.data_ptr()) : nullptr),
        lse_BHT_(output ? output->lse_BHT.data_ptr<float>() : nullptr) {}

  void Run(const Progress& progress) {
    next_ = 0;
    const std::thread::id caller = std::this_thread::get_id();
    OnEachThread([&] { Attend(std::this_thread::get_id() == caller ? progress : Progress()); });
  }

 private:
  enum class Packing : char { kNobody, kSomebody, kDone };

  // State of one thread: a tile of queries and its running softmax.
  struct Worker {
    explicit Worker(const ForwardPass& pass)
        : kernel(kernels::ThreadForwardTile(pass.tiling_.shape)),
          tile(pass.tiling_, pass.queries_),
          max_R(static_cast<size_t>(pass.tiling_.shape.rows)),
          sum_R(max_R.size()),
          acc_RK(kernels::MakeAlignedBuffer<float>(max_R.size() * pass.Dim())),
          packed_queries(kernels::MakeAlignedBuffer<char>(
              kernels::AttentionForwardTile::PackedQueryBytes(pass.tiling_.shape))) {}

    kernels::AttentionForwardTile& kernel;
    QueryTile tile;
    std::vector<float> max_R, sum_R;
    kernels::AlignedBuffer<float> acc_RK;
    kernels::AlignedBuffer<char> packed_queries;
    std::vector<const void*> rows;
  };

  size_t Dim() const { return static_cast<size_t>(tiling_.shape.padded_dim()); }
  size_t PackedCount() const {
    return static_cast<size_t>(tiling_.batch * tiling_.kv_heads * (last_ - first_));
  }
  size_t PackedIndex(int64_t b, int64_t g, int64_t key_tile) const {
    return static_cast<size_t>((b * tiling_.kv_heads + g) * (last_ - first_) + key_tile - first_);
  }
  Visibility Seen(int64_t b, int64_t query_tile, int64_t key_tile) const {
    const auto row = static_cast<size_t>(b);
    return Compare(tiling_.query_tiles[row][static_cast<size_t>(query_tile)],
                   tiling_.key_tiles[row][static_cast<size_t>(key_tile)]);
  }

  // The first tile from `from` on that the queries see, last_ if there is none.
  int64_t NextSeen(int64_t b, int64_t query_tile, int64_t from) const {
    while (from < last_ && Seen(b, query_tile, from) == Visibility::kNone) ++from;
    return from;
  }

  // Whoever needs a tile of keys first packs it: it is then in that core's cache.
  void PackKeys(Worker& worker, int64_t b, int64_t g, int64_t tile) {
    const size_t at = PackedIndex(b, g, tile);
    std::atomic<Packing>& packing = packing_[at];
    for (Packing seen = packing; seen != Packing::kDone; seen = packing) {
      if (seen == Packing::kNobody && packing.compare_exchange_strong(seen, Packing::kSomebody)) {
        try {
          const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, b, g, tile);
          const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, b, g, tile);
          finite_[at] = worker.kernel.PackKeys({k_rows.data(), v_rows.data()},
                                               packed_.data() + at * key_bytes_);
        } catch (...) {
          packing = Packing::kNobody;  // nobody waits for what will not come
          throw;
        }
        packing = Packing::kDone;
        return;
      }
      std::this_thread::yield();
    }
  }

  void Attend(const Progress& progress) {
    Worker worker(*this);
    const int64_t blocks = tiling_.head_blocks, tiles = tiling_.query_tile_count();
    const int64_t per_tile = tiling_.batch * tiling_.kv_heads * blocks;
    for (int64_t i = next_++; i < per_tile * tiles; i = next_++) {
      const int64_t tile = tiles - 1 - i / per_tile;  // the late ones see most: they go first
      const int64_t b = i % per_tile / (tiling_.kv_heads * blocks);
      AttendTile(worker, b, i / blocks % tiling_.kv_heads, i % blocks, tile, progress);
    }
  }

  void AttendTile(Worker& worker, int64_t b, int64_t g, int64_t head_block, int64_t query_tile,
                  const Progress& progress) {
    int64_t tile = NextSeen(b, query_tile, first_);
    if (tile == last_ && !out_BTHK_) return;
    worker.tile.Select(b, g, head_block, query_tile);
    Load(worker, b);
    if (tile < last_) PackQueries(worker);
    while (tile < last_) {
      const int64_t next = NextSeen(b, query_tile, tile + 1);
      AttendPair(worker, b, g, tile, next, Seen(b, query_tile, tile));
      if (progress) progress();
      tile = next;
    }
    if (out_BTHK_) {
      Finish(worker, b);
    } else {
      Store(worker, b);
    }
  }

  const char* Packed(size_t at) const { return packed_.data() + at * key_bytes_; }
  const char* PackedAlready(int64_t b, int64_t g, int64_t tile) const {
    if (tile == last_ || packing_[PackedIndex(b, g, tile)] != Packing::kDone) return nullptr;
    return Packed(PackedIndex(b, g, tile));
  }

  void AttendPair(Worker& worker, int64_t b, int64_t g, int64_t tile, int64_t next,
                  Visibility seen) {
    const kernels::TileMask mask = worker.tile.Mask(tiling_.KeyIndex(b, tile));
    const size_t at = PackedIndex(b, g, tile);
    PackKeys(worker, b, g, tile);
    if (seen == Visibility::kSome && !finite_[at]) {
      const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, b, g, tile);
      const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, b, g, tile);
      kernels::CarefulForward(tiling_.shape, {worker.rows.data(), nullptr},
                              {k_rows.data(), v_rows.data()}, scale_, mask, worker.max_R.data(),
                              worker.sum_R.data(), worker.acc_RK.get());
    } else {
      worker.kernel.Run(worker.packed_queries.get(), Packed(at), PackedAlready(b, g, next), scale_,
                        seen == Visibility::kAll ? nullptr : &mask, worker.max_R.data(),
                        worker.sum_R.data(), worker.acc_RK.get());
    }
  }

  int64_t Stat(int64_t b, int64_t head, int64_t slot) const {
    return (b * tiling_.heads + head) * tiling_.tokens + slot;
  }
  // Where the query's first number lies in [B,T,H,K].
  int64_t At(int64_t b, int64_t head, int64_t slot) const {
    return ((b * tiling_.tokens + slot) * tiling_.heads + head) * tiling_.shape.head_dim;
  }

  void PackQueries(Worker& worker) const {
    worker.rows = worker.tile.Rows(queries_.q_BTHK);
    worker.kernel.PackQueries({worker.rows.data(), nullptr}, worker.packed_queries.get());
  }

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
  const KeyBlock& keys_;
  const float scale_;
  const int64_t first_, last_;
  const size_t key_bytes_;
  ScratchMemory packed_;
  std::vector<char> finite_;
  std::vector<std::atomic<Packing>> packing_;
  float *max_BHT_, *sum_BHT_, *acc_BTHK_;
  char* out_BTHK_;  // with lse: nullptr unless these are the last keys
  float* lse_BHT_;
  std::atomic<int64_t> next_{0};
};

}  // namespace

void AttentionBlockForward(const QueryBlock& queries, const KeyBlock& keys, double scale,
                           AttentionCarry& carry, const Progress& progress,
                           AttentionOutput* output) {
  CheckAttentionBlock(queries, keys, scale);
  const at::Tensor& q = queries.q_BTHK;
  CheckF32(carry.acc_BTHK, q.sizes(), "carry.acc");
  CheckF32(carry.max_BHT, {q.size(0), q.size(2), q.size(1)}, "carry.max");
  CheckF32(carry.sum_BHT, {q.size(0), q.size(2), q.size(1)}, "carry.sum");
  if (q.numel() == 0 || keys.k_BUGK.numel() == 0) {
    if (output) FinishAttention(carry, q.scalar_type(), output->out_BTHK, output->lse_BHT);
    return;
  }
  if (output) {
    output->out_BTHK = at::empty(q.sizes(), at::TensorOptions(q.scalar_type()));
    output->lse_BHT = at::empty(carry.max_BHT.sizes(), at::TensorOptions(at::kFloat));
  }
  const AttentionTiling tiling(queries, keys);
  const int64_t tile_bytes =
      tiling.batch * tiling.kv_heads * 2 * static_cast<int64_t>(tiling.shape.key_bytes());
  const int64_t step = std::max<int64_t>(1, kPackedBytes / tile_bytes);
  const int64_t tiles = tiling.key_tile_count();
  for (int64_t first = 0; first < tiles; first += step) {
    const bool is_last = first + step >= tiles;
    ForwardPass(tiling, queries, keys, SafeScale(scale), carry, is_last ? output : nullptr, first,
                std::min(first + step, tiles))
        .Run(progress);
  }
}

}  // namespace lwm::ops
