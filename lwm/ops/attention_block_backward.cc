#include <ATen/core/Tensor.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <atomic>
#include <cstring>
#include <exception>
#include <limits>
#include <thread>
#include <vector>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention_careful.h"
#include "lwm/kernels/attention_tile.h"
#include "lwm/kernels/tile_layout.h"
#include "lwm/ops/attention_block.h"
#include "lwm/ops/attention_tiling.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

struct Gradients {
  float* dq_BTHK;
  char* rounded_dq_BTHK;        // may be nullptr
  char *dk_BUGK, *dv_BUGK;      // f32 where they are added to
  kernels::TileType keys_type;  // of dk and dv
  bool set_queries, set_keys;
};

// The queries of tiles [first, last) of every batch row and head, against all keys. A thread takes
// one tile of keys of one kv head, in order, and adds its gradients up over the queries. It waits
// for its turn with a tile of queries, so that the order of the sum of their gradient, and with it
// every bit, does not depend on the number of threads. Tiles of keys are taken in the order of the
// turns, so the one that everybody waits for is always being computed.
class BackwardPass {
 public:
  BackwardPass(const AttentionTiling& tiling, const QueryGradientBlock& queries,
               const KeyBlock& keys, float scale, const Gradients& gradients, int64_t first,
               int64_t last)
      : tiling_(tiling),
        queries_(queries),
        keys_(keys),
        scale_(scale),
        gradients_(gradients),
        first_(first),
        last_(last),
        query_bytes_(kernels::AttentionBackwardTile::PackedQueryBytes(tiling.shape)),
        packed_(PackedCount() * query_bytes_),
        finite_(PackedCount()),
        first_turn_(PackedCount()),
        turn_(PackedCount()) {}

  void Run(const Progress& progress) {
    next_ = 0;
    OnEachThread([this] { OrderTurns(); });
    next_ = 0;
    const std::thread::id caller = std::this_thread::get_id();
    OnEachThread([&] { TakeKeys(std::this_thread::get_id() == caller ? progress : Progress()); });
  }

 private:
  struct Worker {
    explicit Worker(const BackwardPass& pass)
        : kernel(kernels::ThreadBackwardTile(pass.tiling_.shape)),
          tile(pass.tiling_, pass.queries_.queries),
          lse_R(static_cast<size_t>(pass.tiling_.shape.rows)),
          delta_R(lse_R.size()),
          dk_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          dv_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          careful_dk_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          careful_dv_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          careful_dq_RK(kernels::MakeAlignedBuffer<float>(lse_R.size() * pass.Dim())),
          dq_RK(kernels::MakeAlignedBuffer<float>(lse_R.size() * pass.Dim())),
          dq_rows(lse_R.size()) {}

    kernels::AttentionBackwardTile& kernel;
    QueryTile tile;
    std::vector<float> lse_R, delta_R;
    kernels::AlignedBuffer<float> dk_NK, dv_NK;
    kernels::AlignedBuffer<float> careful_dk_NK, careful_dv_NK, careful_dq_RK;
    bool careful = false;  // there were some with these keys
    kernels::AlignedBuffer<float> dq_RK;
    std::vector<float*> dq_rows;
    bool last_turn = false;
    bool keys_finite = true;
    const char* next_queries = nullptr;
  };

  // Tells the other threads when this one ends with an exception: its turns will not come.
  struct Abandon {
    std::atomic<bool>& abandoned;
    ~Abandon() {
      if (std::uncaught_exceptions() > 0) abandoned = true;
    }
  };

  size_t Dim() const { return static_cast<size_t>(tiling_.shape.padded_dim()); }
  size_t KeyNumbers() const { return static_cast<size_t>(tiling_.shape.keys) * Dim(); }
  const char* Packed(size_t at) const { return packed_.data() + at * query_bytes_; }
  int64_t Blocks() const { return tiling_.kv_heads * tiling_.head_blocks; }
  size_t PackedCount() const {
    return static_cast<size_t>(tiling_.batch * Blocks() * (last_ - first_));
  }
  size_t PackedIndex(int64_t b, int64_t g, int64_t head_block, int64_t tile) const {
    const int64_t block = (b * tiling_.kv_heads + g) * tiling_.head_blocks + head_block;
    return static_cast<size_t>(block * (last_ - first_) + tile - first_);
  }
  Visibility Seen(int64_t b, int64_t query_tile, int64_t key_tile) const {
    const auto row = static_cast<size_t>(b);
    return Compare(tiling_.query_tiles[row][static_cast<size_t>(query_tile)],
                   tiling_.key_tiles[row][static_cast<size_t>(key_tile)]);
  }
  // The first tile of keys from `from` on that the queries see: whose turn it is to add.
  int64_t NextTurn(int64_t b, int64_t query_tile, int64_t from) const {
    while (from < tiling_.key_tile_count() && Seen(b, query_tile, from) == Visibility::kNone) {
      ++from;
    }
    return from;
  }

  void OrderTurns() {
    QueryTile tile(tiling_, queries_.queries);
    const int64_t tiles = last_ - first_, blocks = tiling_.head_blocks;
    const int64_t per_row = Blocks() * tiles;
    for (int64_t i = next_++; i < tiling_.batch * per_row; i = next_++) {
      const int64_t b = i / per_row, g = i / (blocks * tiles) % tiling_.kv_heads;
      const int64_t head_block = i / tiles % blocks, query_tile = first_ + i % tiles;
      const size_t at = PackedIndex(b, g, head_block, query_tile);
      first_turn_[at] = NextTurn(b, query_tile, 0);
      turn_[at] = first_turn_[at];
      if (first_turn_[at] < tiling_.key_tile_count()) continue;
      tile.Select(b, g, head_block, query_tile);  // sees nothing
      if (gradients_.set_queries) SetQueriesToZero(tile, b);
      if (gradients_.rounded_dq_BTHK) RoundQueries(tile, b);
    }
  }

  // At their first turn: they are then in that core's cache.
  void PackQueries(Worker& worker, size_t at) {
    const auto q_rows = worker.tile.Rows(queries_.queries.q_BTHK);
    const auto dout_rows = worker.tile.Rows(queries_.dout_BTHK);
    finite_[at] = worker.kernel.PackQueries({q_rows.data(), dout_rows.data()},
                                            packed_.data() + at * query_bytes_);
  }

  void TakeKeys(const Progress& progress) {
    const Abandon abandon{abandoned_};
    Worker worker(*this);
    const int64_t per_tile = tiling_.batch * tiling_.kv_heads;
    for (int64_t i = next_++; i < per_tile * tiling_.key_tile_count(); i = next_++) {
      const int64_t b = i % per_tile / tiling_.kv_heads;
      TakeKeyTile(worker, b, i % tiling_.kv_heads, i / per_tile, progress);
    }
  }

  // The queries of one pair with a tile of keys.
  struct Place {
    int64_t tile, head_block;
  };
  // The first place from `from` on that sees the keys; tile is last_ if there is none.
  Place NextSeeing(int64_t b, int64_t key_tile, Place from) const {
    if (from.head_block == tiling_.head_blocks) from = {from.tile + 1, 0};
    while (from.tile < last_ && Seen(b, from.tile, key_tile) == Visibility::kNone) {
      from = {from.tile + 1, 0};
    }
    return from;
  }

  void TakeKeyTile(Worker& worker, int64_t b, int64_t g, int64_t key_tile,
                   const Progress& progress) {
    Place place = NextSeeing(b, key_tile, {first_, 0});
    if (place.tile == last_) {
      if (gradients_.set_keys) SetKeysToZero(b, g, key_tile);
      return;
    }
    LoadKeys(worker, b, g, key_tile);
    while (place.tile < last_) {
      const Place next = NextSeeing(b, key_tile, {place.tile, place.head_block + 1});
      worker.next_queries =
          next.tile < last_ ? Packed(PackedIndex(b, g, next.head_block, next.tile)) : nullptr;
      worker.tile.Select(b, g, place.head_block, place.tile);
      const size_t at = PackedIndex(b, g, place.head_block, place.tile);
      if (!WaitForTurn(turn_[at], key_tile)) return;
      if (first_turn_[at] == key_tile) PackQueries(worker, at);
      const int64_t next_turn = NextTurn(b, place.tile, key_tile + 1);
      StartQueries(worker, b, first_turn_[at] == key_tile && gradients_.set_queries,
                   next_turn == tiling_.key_tile_count() && gradients_.rounded_dq_BTHK);
      ComputePair(worker, b, g, at, place.tile, key_tile);
      FinishQueries(worker, b);
      turn_[at] = next_turn;
      if (progress) progress();
      place = next;
    }
    StoreKeys(worker, b, g, key_tile);
  }

  bool WaitForTurn(const std::atomic<int64_t>& turn, int64_t mine) const {
    constexpr int kSpins = 2000;  // a turn is rarely more than part of a tile away
    for (int spin = 0; turn != mine; ++spin) {
      if (abandoned_) return false;
      if (spin > kSpins) std::this_thread::yield();
    }
    return true;
  }

  void LoadKeys(Worker& worker, int64_t b, int64_t g, int64_t key_tile) {
    const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, b, g, key_tile);
    const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, b, g, key_tile);
    worker.keys_finite = worker.kernel.StartKeys({k_rows.data(), v_rows.data()});
    worker.careful = false;
  }

  void ComputePair(Worker& worker, int64_t b, int64_t g, size_t at, int64_t query_tile,
                   int64_t key_tile) {
    const float* lse_BHT = queries_.lse_BHT.const_data_ptr<float>();
    const float* delta_BHT = queries_.delta_BHT.const_data_ptr<float>();
    std::fill(worker.lse_R.begin(), worker.lse_R.end(), std::numeric_limits<float>::infinity());
    std::fill(worker.delta_R.begin(), worker.delta_R.end(), 0.0f);
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const int64_t stat = (b * tiling_.heads + head) * tiling_.tokens + slot;
      worker.lse_R[static_cast<size_t>(row)] = lse_BHT[stat];
      worker.delta_R[static_cast<size_t>(row)] = delta_BHT[stat];
    });
    const kernels::TileMask mask = worker.tile.Mask(tiling_.KeyIndex(b, key_tile));
    const bool masked = Seen(b, query_tile, key_tile) == Visibility::kSome;
    if (masked && !(worker.keys_finite && finite_[at])) {
      ComputePairCarefully(worker, b, g, key_tile, mask);
    } else {
      worker.kernel.Run(Packed(at), worker.next_queries, scale_, masked ? &mask : nullptr,
                        worker.lse_R.data(), worker.delta_R.data(), worker.dq_rows.data());
    }
  }

  void ComputePairCarefully(Worker& worker, int64_t b, int64_t g, int64_t key_tile,
                            const kernels::TileMask& mask) {
    const auto q_rows = worker.tile.Rows(queries_.queries.q_BTHK);
    const auto dout_rows = worker.tile.Rows(queries_.dout_BTHK);
    const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, b, g, key_tile);
    const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, b, g, key_tile);
    if (!worker.careful) {
      std::fill_n(worker.careful_dk_NK.get(), KeyNumbers(), 0.0f);
      std::fill_n(worker.careful_dv_NK.get(), KeyNumbers(), 0.0f);
      worker.careful = true;
    }
    kernels::CarefulBackward(tiling_.shape, {q_rows.data(), dout_rows.data()},
                             {k_rows.data(), v_rows.data()}, scale_, mask, worker.lse_R.data(),
                             worker.delta_R.data(), worker.careful_dk_NK.get(),
                             worker.careful_dv_NK.get(), worker.careful_dq_RK.get());
    for (size_t row = 0; row < worker.dq_rows.size(); ++row) {
      if (!worker.dq_rows[row]) continue;
      kernels::AddRow(worker.careful_dq_RK.get() + row * Dim(), tiling_.shape.head_dim,
                      worker.dq_rows[row]);
    }
  }

  // Where the pair adds the gradient of its queries: their rows of dq, or, where it is the only
  // pair that does, scratch that stays in the cache.
  void StartQueries(Worker& worker, int64_t b, bool first, bool last) const {
    worker.last_turn = last;
    std::fill(worker.dq_rows.begin(), worker.dq_rows.end(), nullptr);
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const auto r = static_cast<size_t>(row);
      const bool local = first && last;
      float* dq_K = local ? worker.dq_RK.get() + r * Dim() : gradients_.dq_BTHK + At(b, slot, head);
      if (first) std::fill_n(dq_K, tiling_.shape.head_dim, 0.0f);
      worker.dq_rows[r] = dq_K;
    });
  }
  void FinishQueries(const Worker& worker, int64_t b) const {
    if (!worker.last_turn) return;
    worker.tile.ForEach([&](int row, int64_t slot, int64_t head) {
      RoundQuery(worker.dq_rows[static_cast<size_t>(row)], At(b, slot, head));
    });
  }
  void SetQueriesToZero(const QueryTile& tile, int64_t b) const {
    tile.ForEach([&](int, int64_t slot, int64_t head) {
      std::fill_n(gradients_.dq_BTHK + At(b, slot, head), tiling_.shape.head_dim, 0.0f);
    });
  }
  void RoundQueries(const QueryTile& tile, int64_t b) const {
    tile.ForEach([&](int, int64_t slot, int64_t head) {
      RoundQuery(gradients_.dq_BTHK + At(b, slot, head), At(b, slot, head));
    });
  }
  void RoundQuery(const float* dq_K, int64_t at) const {
    const auto element = static_cast<int64_t>(kernels::BytesPerElement(tiling_.shape.type));
    kernels::ScaleRowTo(tiling_.shape.type, dq_K, tiling_.shape.head_dim, 1.0f,
                        gradients_.rounded_dq_BTHK + at * element);
  }
  // Where the query's first number lies in [B,T,H,K].
  int64_t At(int64_t b, int64_t slot, int64_t head) const {
    return ((b * tiling_.tokens + slot) * tiling_.heads + head) * tiling_.shape.head_dim;
  }

  // Calls fn(key of the tile, where its first number lies in [B,U,G,K]).
  template <class Fn>
  void ForEachKey(int64_t b, int64_t g, int64_t key_tile, const Fn& fn) const {
    const SlotTile& slots =
        tiling_.key_tiles[static_cast<size_t>(b)][static_cast<size_t>(key_tile)];
    for (int n = 0; n < slots.count; ++n) {
      const int64_t row = (b * tiling_.key_slots + slots.first + n) * tiling_.kv_heads + g;
      fn(static_cast<size_t>(n), row * tiling_.shape.head_dim);
    }
  }

  void StoreKeys(Worker& worker, int64_t b, int64_t g, int64_t key_tile) const {
    worker.kernel.KeyGradients(worker.dk_NK.get(), worker.dv_NK.get());
    if (worker.careful) {
      kernels::AddRow(worker.careful_dk_NK.get(), static_cast<int>(KeyNumbers()),
                      worker.dk_NK.get());
      kernels::AddRow(worker.careful_dv_NK.get(), static_cast<int>(KeyNumbers()),
                      worker.dv_NK.get());
    }
    ForEachKey(b, g, key_tile, [&](size_t n, int64_t at) {
      StoreKey(worker.dk_NK.get() + n * Dim(), gradients_.dk_BUGK, at);
      StoreKey(worker.dv_NK.get() + n * Dim(), gradients_.dv_BUGK, at);
    });
  }
  void StoreKey(const float* x_K, char* to_BUGK, int64_t at) const {
    char* to_K = to_BUGK + at * KeyElement();
    const int dim = tiling_.shape.head_dim;
    if (gradients_.set_keys) {
      kernels::ScaleRowTo(gradients_.keys_type, x_K, dim, 1.0f, to_K);
    } else {
      kernels::AddRow(x_K, dim, reinterpret_cast<float*>(to_K));
    }
  }
  void SetKeysToZero(int64_t b, int64_t g, int64_t key_tile) const {
    const auto bytes = static_cast<size_t>(tiling_.shape.head_dim * KeyElement());
    ForEachKey(b, g, key_tile, [&](size_t, int64_t at) {
      std::memset(gradients_.dk_BUGK + at * KeyElement(), 0, bytes);
      std::memset(gradients_.dv_BUGK + at * KeyElement(), 0, bytes);
    });
  }
  int64_t KeyElement() const {
    return static_cast<int64_t>(kernels::BytesPerElement(gradients_.keys_type));
  }

  const AttentionTiling& tiling_;
  const QueryGradientBlock& queries_;
  const KeyBlock& keys_;
  const float scale_;
  const Gradients gradients_;
  const int64_t first_, last_;
  const size_t query_bytes_;
  ScratchMemory packed_;
  std::vector<char> finite_;
  std::vector<int64_t> first_turn_;
  std::vector<std::atomic<int64_t>> turn_;
  std::atomic<int64_t> next_{0};
  std::atomic<bool> abandoned_{false};
};

void CheckArguments(const QueryGradientBlock& queries, const KeyBlock& keys, double scale,
                    const at::Tensor& dq_BTHK, const at::Tensor& dk_BUGK, const at::Tensor& dv_BUGK,
                    const AttentionGradientOptions& options) {
  CheckAttentionBlock(queries.queries, keys, scale);
  const at::Tensor &q = queries.queries.q_BTHK, &k = keys.k_BUGK;
  CheckLikeQueries(queries.dout_BTHK, q, "dout");
  CheckF32(queries.lse_BHT, {q.size(0), q.size(2), q.size(1)}, "lse");
  CheckF32(queries.delta_BHT, {q.size(0), q.size(2), q.size(1)}, "delta");
  CheckF32(dq_BTHK, q.sizes(), "dq");
  if (options.rounded_dq_BTHK.defined()) CheckLikeQueries(options.rounded_dq_BTHK, q, "rounded dq");
  if (options.set_keys && dk_BUGK.scalar_type() == k.scalar_type()) {
    CheckLikeQueries(dk_BUGK, k, "dk");
    CheckLikeQueries(dv_BUGK, k, "dv");
  } else {
    CheckF32(dk_BUGK, k.sizes(), "dk");
    CheckF32(dv_BUGK, k.sizes(), "dv");
  }
}

}  // namespace

void AttentionBlockBackward(const QueryGradientBlock& queries, const KeyBlock& keys, double scale,
                            at::Tensor& dq_BTHK, at::Tensor& dk_BUGK, at::Tensor& dv_BUGK,
                            const Progress& progress, const AttentionGradientOptions& options) {
  CheckArguments(queries, keys, scale, dq_BTHK, dk_BUGK, dv_BUGK, options);
  if (queries.queries.q_BTHK.numel() == 0 || keys.k_BUGK.numel() == 0) {
    if (options.set_queries) dq_BTHK.zero_();
    if (options.rounded_dq_BTHK.defined()) options.rounded_dq_BTHK.copy_(dq_BTHK);
    if (options.set_keys) dk_BUGK.zero_();
    if (options.set_keys) dv_BUGK.zero_();
    return;
  }
  const AttentionTiling tiling(queries.queries, keys);
  const int64_t tile_bytes =
      tiling.batch * tiling.kv_heads * tiling.head_blocks *
      static_cast<int64_t>(kernels::AttentionBackwardTile::PackedQueryBytes(tiling.shape));
  const int64_t step = std::max<int64_t>(1, kPackedBytes / tile_bytes);
  const int64_t tiles = tiling.query_tile_count();
  const bool rounds = dk_BUGK.scalar_type() != at::kFloat;
  if (rounds && step < tiles) {  // sums of several passes are rounded once
    at::Tensor dk = at::empty(dk_BUGK.sizes(), at::TensorOptions(at::kFloat));
    at::Tensor dv = at::empty(dv_BUGK.sizes(), at::TensorOptions(at::kFloat));
    AttentionBlockBackward(queries, keys, scale, dq_BTHK, dk, dv, progress, options);
    dk_BUGK.copy_(dk);
    dv_BUGK.copy_(dv);
    return;
  }
  const at::Tensor& rounded = options.rounded_dq_BTHK;
  Gradients gradients{dq_BTHK.data_ptr<float>(),
                      rounded.defined() ? static_cast<char*>(rounded.data_ptr()) : nullptr,
                      static_cast<char*>(dk_BUGK.data_ptr()),
                      static_cast<char*>(dv_BUGK.data_ptr()),
                      rounds ? kernels::TileType::kBF16 : kernels::TileType::kF32,
                      options.set_queries,
                      options.set_keys};
  for (int64_t first = 0; first < tiles; first += step) {
    BackwardPass(tiling, queries, keys, SafeScale(scale), gradients, first,
                 std::min(first + step, tiles))
        .Run(progress);
    gradients.set_keys = false;
  }
}

}  // namespace lwm::ops
