#include <ATen/Parallel.h>
#include <ATen/core/Tensor.h>

#include <algorithm>
#include <atomic>
#include <exception>
#include <limits>
#include <memory>
#include <thread>
#include <utility>
#include <vector>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/attention/scalar_tile.h"
#include "lwm/kernels/attention/tile.h"
#include "lwm/kernels/tile_layout.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/query_tiles.h"
#include "lwm/ops/attention/tile_pass.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {
namespace {

using kernels::AttentionBackwardTile;

int64_t TilesPerPass(const AttentionTiling& tiling) {
  const int64_t tile_bytes =
      tiling.batch * tiling.kv_heads * tiling.head_blocks *
      static_cast<int64_t>(AttentionBackwardTile::PackedQueryBytes(tiling.shape));
  return std::max<int64_t>(1, kPackedBytes / tile_bytes);
}

// Destination of the gradients of the keys.
struct KeySums {
  float *dk_BUGK, *dv_BUGK;
  char *rounded_dk_BUGK, *rounded_dv_BUGK;  // may be nullptr
  bool set;
};

// One or two runs of queries against all keys. A place is one tile of keys of one kv head: a thread
// adds up its gradients over the queries of a run: dk and dv need no other thread. dq does: every
// tile of keys adds to it. Each waits for its turn with a tile of queries, so that the order of the
// sum, and with it every bit, does not depend on the number of threads. No deadlock: tiles of keys
// are taken in the order of the turns, so the tile that others wait for is always being computed.
class BackwardPass {
 public:
  BackwardPass(const AttentionTiling& tiling, const KeyBlock& keys, float scale,
               const Progress& progress)
      : tiling_(tiling), keys_(keys), scale_(scale), progress_(progress) {}

  // The first `done` places see the last run of queries only: they have seen the other. Returns how
  // many places are done, fewer than all when joining queries arrived.
  int64_t Run(std::vector<QueryTiles*> queries, int64_t done, const KeySums& sums,
              JoiningTiles<QueryTiles>* joining) {
    queries_ = std::move(queries);
    sums_ = sums;
    queries_.back()->OrderTurns();
    return RunTilePass(KeyPlaces(), tiling_.shape, progress_, joining,
                       [&](const auto& take, const auto& poll) {
                         const Abandon abandon{abandoned_};
                         Worker worker(*this);
                         while (const auto place = take()) {
                           if (!TakeKeyTile(worker, PlaceAt(*place), *place < done ? 1 : 0, poll))
                             return;
                         }
                       });
  }

 private:
  struct Worker {
    explicit Worker(const BackwardPass& pass)
        : kernel(kernels::ThreadBackwardTile(pass.tiling_.shape)),
          lse_R(static_cast<size_t>(pass.tiling_.shape.rows)),
          delta_R(lse_R.size()),
          dk_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          dv_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          more_dk_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          more_dv_NK(kernels::MakeAlignedBuffer<float>(pass.KeyNumbers())),
          scalar_dq_RK(kernels::MakeAlignedBuffer<float>(lse_R.size() * pass.Dim())),
          dq_RK(kernels::MakeAlignedBuffer<float>(lse_R.size() * pass.Dim())),
          dq_rows(lse_R.size()) {
      for (const QueryTiles* queries : pass.queries_) {
        tiles.emplace_back(queries->tiling(), queries->queries().queries);
      }
    }

    AttentionBackwardTile& kernel;
    std::vector<QueryTile> tiles;  // of each run of queries
    std::vector<float> lse_R, delta_R;
    kernels::AlignedBuffer<float> dk_NK, dv_NK;            // of the keys so far
    kernels::AlignedBuffer<float> more_dk_NK, more_dv_NK;  // of one run of queries
    kernels::AlignedBuffer<float> scalar_dk_NK, scalar_dv_NK;
    kernels::AlignedBuffer<float> scalar_dq_RK;
    bool took_scalar_tile = false;  // some pair of these keys took the scalar tile
    kernels::AlignedBuffer<float> dq_RK;
    std::vector<float*> dq_rows;
    bool keys_finite = true;
  };

  // Tells the other threads when this one ends with an exception: its turns will not come.
  struct Abandon {
    std::atomic<bool>& abandoned;
    ~Abandon() {
      if (std::uncaught_exceptions() > 0) abandoned = true;
    }
  };

  // A tile of keys of one row and kv head.
  struct KeyPlace {
    int64_t b, g, tile;
  };

  size_t Dim() const { return static_cast<size_t>(tiling_.shape.padded_dim()); }
  size_t KeyNumbers() const { return static_cast<size_t>(tiling_.shape.keys) * Dim(); }
  int64_t KeyPlaces() const { return tiling_.batch * tiling_.kv_heads * tiling_.key_tile_count(); }

  // The i-th place in the order of the pass: as many heads at a time as there are threads. Threads
  // then mostly work on different heads: they do not wait for each other, and find a head's
  // queries, which every tile of keys reads again, in their caches.
  KeyPlace PlaceAt(int64_t i) const {
    const int64_t heads = tiling_.batch * tiling_.kv_heads, tiles = tiling_.key_tile_count();
    const int64_t first_head = i / (threads_ * tiles) * threads_;
    const int64_t count = std::min(threads_, heads - first_head);
    const int64_t of_these = i - first_head * tiles, head = first_head + of_these % count;
    return {head / tiling_.kv_heads, head % tiling_.kv_heads, of_these / count};
  }

  // Returns whether the turns came.
  template <class Poll>
  bool TakeKeyTile(Worker& worker, const KeyPlace& place, size_t first_queries, const Poll& poll) {
    const bool nothing_yet = sums_.set && first_queries == 0;
    bool any = false;
    for (size_t r = first_queries; r < queries_.size(); ++r) {
      if (queries_[r]->FirstSeeing(place.b, place.tile).tile == queries_[r]->last()) continue;
      // Keys that no query sees are not even packed.
      if (!any) LoadKeys(worker, place);
      if (!TakeQueries(worker, place, r, poll)) return false;
      if (any) {
        AddKeyGradients(worker);
      } else {
        StartKeyGradients(worker, place, nothing_yet);
      }
      any = true;
    }
    if (any) {
      StoreKeys(worker, place);
    } else {
      KeepKeys(place, nothing_yet);
    }
    return true;
  }

  template <class Poll>
  bool TakeQueries(Worker& worker, const KeyPlace& keys, size_t run, const Poll& poll) {
    QueryTiles& queries = *queries_[run];
    QueryTile& tile = worker.tiles[run];
    QueryPlace place = queries.FirstSeeing(keys.b, keys.tile);
    while (place.tile < queries.last()) {
      const QueryPlace next = queries.NextSeeing(keys.b, keys.tile, place);
      const char* packed_next = next.tile < queries.last()
                                    ? queries.Packed(queries.Index(keys.b, keys.g, next))
                                    : nullptr;
      tile.Select(keys.b, keys.g, place.head_block, place.tile);
      const size_t at = queries.Index(keys.b, keys.g, place);
      if (!WaitForTurn(queries, at, keys.tile)) return false;
      // The first turn sets dq, which may be uninitialised. The last one rounds it while it is in
      // the cache; a sum over one turn never reaches dq in f32.
      const bool first = queries.IsFirstTurn(at, keys.tile);
      const bool rounds = queries.rounds() && queries.IsLastTurn(keys.b, place.tile, keys.tile);
      if (first) queries.Pack(worker.kernel, tile, at);
      StartQueries(worker, queries, tile, keys.b, first && queries.sets(), rounds);
      ComputePair(worker, queries, tile, keys, place.tile, at, packed_next);
      if (rounds) RoundQueries(worker, queries, tile, keys.b);
      queries.EndTurn(keys.b, place, at, keys.tile);
      poll();
      place = next;
    }
    return true;
  }

  bool WaitForTurn(const QueryTiles& queries, size_t at, int64_t key_tile) const {
    constexpr int kSpins = 2000;  // a turn is rarely more than part of a tile away
    for (int spin = 0; !queries.IsTurn(at, key_tile); ++spin) {
      if (abandoned_) return false;
      if (spin > kSpins) std::this_thread::yield();
    }
    return true;
  }

  // Unlike forward's, these keys are packed by the thread that uses them and by nobody else: a tile
  // of keys has one thread.
  void LoadKeys(Worker& worker, const KeyPlace& place) {
    const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, place.b, place.g, place.tile);
    const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, place.b, place.g, place.tile);
    worker.keys_finite = worker.kernel.StartKeys({k_rows.data(), v_rows.data()});
    worker.took_scalar_tile = false;
  }

  void ComputePair(Worker& worker, const QueryTiles& queries, const QueryTile& tile,
                   const KeyPlace& keys, int64_t query_tile, size_t at, const char* packed_next) {
    const float* lse_BHT = queries.queries().lse_BHT.const_data_ptr<float>();
    const float* delta_BHT = queries.queries().delta_BHT.const_data_ptr<float>();
    const AttentionTiling& tiling = queries.tiling();
    // Rows without a query: lse = +inf makes their p and ds 0.
    std::fill(worker.lse_R.begin(), worker.lse_R.end(), std::numeric_limits<float>::infinity());
    std::fill(worker.delta_R.begin(), worker.delta_R.end(), 0.0f);
    tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const int64_t stat = (keys.b * tiling.heads + head) * tiling.tokens + slot;
      worker.lse_R[static_cast<size_t>(row)] = lse_BHT[stat];
      worker.delta_R[static_cast<size_t>(row)] = delta_BHT[stat];
    });
    const kernels::TileMask mask = tile.Mask(tiling_.KeyIndex(keys.b, keys.tile));
    const bool masked = queries.Seen(keys.b, query_tile, keys.tile) == Visibility::kSome;
    // Both sides matter here: hidden pairs have p = ds = 0, and 0 x NaN of q, dout or k would
    // poison the sums of the other side. Such pairs take the scalar tile.
    if (masked && !(worker.keys_finite && queries.Finite(at))) {
      ComputePairByScalars(worker, queries, tile, keys, mask);
    } else {
      worker.kernel.Run(queries.Packed(at), packed_next, scale_, masked ? &mask : nullptr,
                        worker.lse_R.data(), worker.delta_R.data(), worker.dq_rows.data());
    }
  }

  void ComputePairByScalars(Worker& worker, const QueryTiles& queries, const QueryTile& tile,
                            const KeyPlace& keys, const kernels::TileMask& mask) {
    const auto q_rows = tile.Rows(queries.queries().queries.q_BTHK);
    const auto dout_rows = tile.Rows(queries.queries().dout_BTHK);
    const auto k_rows = KeyRows(tiling_, keys_.k_BUGK, keys.b, keys.g, keys.tile);
    const auto v_rows = KeyRows(tiling_, keys_.v_BUGK, keys.b, keys.g, keys.tile);
    if (!worker.took_scalar_tile) {
      // Made only when needed, which is rare.
      worker.scalar_dk_NK = kernels::MakeAlignedBuffer<float>(KeyNumbers());
      worker.scalar_dv_NK = kernels::MakeAlignedBuffer<float>(KeyNumbers());
      std::fill_n(worker.scalar_dk_NK.get(), KeyNumbers(), 0.0f);
      std::fill_n(worker.scalar_dv_NK.get(), KeyNumbers(), 0.0f);
      worker.took_scalar_tile = true;
    }
    kernels::ScalarTileBackward(tiling_.shape, {q_rows.data(), dout_rows.data()},
                                {k_rows.data(), v_rows.data()}, scale_, mask,
                                {.lse_R = worker.lse_R.data(),
                                 .delta_R = worker.delta_R.data(),
                                 .dk_NK = worker.scalar_dk_NK.get(),
                                 .dv_NK = worker.scalar_dv_NK.get(),
                                 .dq_RK = worker.scalar_dq_RK.get()});
    for (size_t row = 0; row < worker.dq_rows.size(); ++row) {
      if (!worker.dq_rows[row]) continue;
      kernels::AddRow(worker.scalar_dq_RK.get() + row * Dim(), tiling_.shape.head_dim,
                      worker.dq_rows[row]);
    }
  }

  // Chooses where the pair adds the gradient of its queries: their rows of dq, or, where it is the
  // only pair that adds to them, scratch that stays in the cache until it is rounded.
  void StartQueries(Worker& worker, const QueryTiles& queries, const QueryTile& tile, int64_t b,
                    bool sets, bool rounds) const {
    std::fill(worker.dq_rows.begin(), worker.dq_rows.end(), nullptr);
    tile.ForEach([&](int row, int64_t slot, int64_t head) {
      const auto r = static_cast<size_t>(row);
      float* dq_K =
          sets && rounds ? worker.dq_RK.get() + r * Dim() : queries.Gradient(b, slot, head);
      if (sets) std::fill_n(dq_K, tiling_.shape.head_dim, 0.0f);
      worker.dq_rows[r] = dq_K;
    });
  }
  void RoundQueries(const Worker& worker, const QueryTiles& queries, const QueryTile& tile,
                    int64_t b) const {
    tile.ForEach([&](int row, int64_t slot, int64_t head) {
      queries.Round(worker.dq_rows[static_cast<size_t>(row)], b, slot, head);
    });
  }

  // The gradients of the keys over one run of queries, those of the scalar tile included.
  void TakeKeyGradients(Worker& worker, float* dk_NK, float* dv_NK) const {
    worker.kernel.KeyGradients(dk_NK, dv_NK);
    if (!worker.took_scalar_tile) return;
    kernels::AddRow(worker.scalar_dk_NK.get(), static_cast<int>(KeyNumbers()), dk_NK);
    kernels::AddRow(worker.scalar_dv_NK.get(), static_cast<int>(KeyNumbers()), dv_NK);
    worker.took_scalar_tile = false;
  }
  void StartKeyGradients(Worker& worker, const KeyPlace& place, bool nothing_yet) const {
    TakeKeyGradients(worker, worker.dk_NK.get(), worker.dv_NK.get());
    if (nothing_yet) return;
    ForEachKey(place, [&](size_t n, int64_t at) {
      kernels::AddRow(sums_.dk_BUGK + at, tiling_.shape.head_dim, worker.dk_NK.get() + n * Dim());
      kernels::AddRow(sums_.dv_BUGK + at, tiling_.shape.head_dim, worker.dv_NK.get() + n * Dim());
    });
  }
  // A second run is summed by itself and then added, as if it had come in a pass of its own: the
  // bits do not depend on whether it arrived in time.
  void AddKeyGradients(Worker& worker) const {
    TakeKeyGradients(worker, worker.more_dk_NK.get(), worker.more_dv_NK.get());
    kernels::AddRow(worker.more_dk_NK.get(), static_cast<int>(KeyNumbers()), worker.dk_NK.get());
    kernels::AddRow(worker.more_dv_NK.get(), static_cast<int>(KeyNumbers()), worker.dv_NK.get());
  }
  // A tile of keys is read and stored once per pass, however many queries see it.
  void StoreKeys(const Worker& worker, const KeyPlace& place) const {
    ForEachKey(place, [&](size_t n, int64_t at) {
      StoreKey(worker.dk_NK.get() + n * Dim(), at, sums_.dk_BUGK, sums_.rounded_dk_BUGK);
      StoreKey(worker.dv_NK.get() + n * Dim(), at, sums_.dv_BUGK, sums_.rounded_dv_BUGK);
    });
  }
  // No query of these runs sees the keys: their gradients are set to 0 or left, and rounded if due.
  void KeepKeys(const KeyPlace& place, bool nothing_yet) const {
    if (!nothing_yet && !sums_.rounded_dk_BUGK) return;
    const std::vector<float> zero_K(static_cast<size_t>(tiling_.shape.head_dim));
    ForEachKey(place, [&](size_t, int64_t at) {
      StoreKey(nothing_yet ? zero_K.data() : sums_.dk_BUGK + at, at, sums_.dk_BUGK,
               sums_.rounded_dk_BUGK);
      StoreKey(nothing_yet ? zero_K.data() : sums_.dv_BUGK + at, at, sums_.dv_BUGK,
               sums_.rounded_dv_BUGK);
    });
  }
  void StoreKey(const float* x_K, int64_t at, float* to_BUGK, char* rounded_BUGK) const {
    const int dim = tiling_.shape.head_dim;
    if (!rounded_BUGK) {
      std::copy_n(x_K, dim, to_BUGK + at);
      return;
    }
    const auto element = static_cast<int64_t>(kernels::BytesPerElement(tiling_.shape.type));
    kernels::ScaleRowTo(tiling_.shape.type, x_K, dim, 1.0f, rounded_BUGK + at * element);
  }
  // Calls fn(key of the tile, offset of its first number in [B,U,G,K]).
  template <class Fn>
  void ForEachKey(const KeyPlace& place, const Fn& fn) const {
    const SlotTile& slots =
        tiling_.key_tiles[static_cast<size_t>(place.b)][static_cast<size_t>(place.tile)];
    for (int n = 0; n < slots.count; ++n) {
      const int64_t row =
          (place.b * tiling_.key_slots + slots.first + n) * tiling_.kv_heads + place.g;
      fn(static_cast<size_t>(n), row * tiling_.shape.head_dim);
    }
  }

  const AttentionTiling& tiling_;
  const KeyBlock& keys_;
  const float scale_;
  const Progress& progress_;
  const int64_t threads_ = at::get_num_threads();
  std::vector<QueryTiles*> queries_;
  KeySums sums_{};
  std::atomic<bool> abandoned_{false};
};

JoiningTiles<QueryTiles> QueriesOf(const NextQueries& next, const KeyBlock& keys) {
  const auto block = std::make_shared<const ArrivedQueries*>(nullptr);
  return {[&, block]() -> std::unique_ptr<AttentionTiling> {
            *block = next.arrived();
            if (!*block) return nullptr;
            const QueryBlock& queries = (*block)->queries.queries;
            CheckAttentionBlock(queries, keys, 0);
            return std::make_unique<AttentionTiling>(queries, keys);
          },
          [block](const AttentionTiling& tiling) -> std::unique_ptr<QueryTiles> {
            const int64_t tiles = tiling.query_tile_count();
            if (tiles > TilesPerPass(tiling)) return nullptr;
            const QuerySums sums{(*block)->dq_BTHK.data_ptr<float>(), nullptr, /*set=*/true};
            return std::make_unique<QueryTiles>(tiling, (*block)->queries, sums, 0, tiles);
          }};
}

void CheckRounded(const at::Tensor& x, const at::Tensor& like, const char* name) {
  if (x.defined()) CheckLikeQueries(x, like, name);
}

void CheckArguments(const QueryGradientBlock& queries, const KeyBlock& keys, double scale,
                    const AttentionGradientSums& sums, const AttentionGradientOptions& options) {
  CheckAttentionBlock(queries.queries, keys, scale);
  const at::Tensor &q = queries.queries.q_BTHK, &k = keys.k_BUGK;
  CheckLikeQueries(queries.dout_BTHK, q, "dout");
  CheckF32(queries.lse_BHT, {q.size(0), q.size(2), q.size(1)}, "lse");
  CheckF32(queries.delta_BHT, {q.size(0), q.size(2), q.size(1)}, "delta");
  CheckF32(sums.dq_BTHK, q.sizes(), "dq");
  CheckF32(sums.dk_BUGK, k.sizes(), "dk");
  CheckF32(sums.dv_BUGK, k.sizes(), "dv");
  CheckRounded(options.rounded_dq_BTHK, q, "rounded dq");
  CheckRounded(options.rounded_dk_BUGK, k, "rounded dk");
  CheckRounded(options.rounded_dv_BUGK, k, "rounded dv");
}

char* Data(const at::Tensor& x) { return x.defined() ? static_cast<char*>(x.data_ptr()) : nullptr; }

// Without queries or without keys, gradients are 0 or stay.
void KeepGradients(const AttentionGradientSums& sums, const AttentionGradientOptions& options) {
  if (options.set_queries) sums.dq_BTHK.zero_();
  if (options.set_keys) sums.dk_BUGK.zero_();
  if (options.set_keys) sums.dv_BUGK.zero_();
  if (options.rounded_dq_BTHK.defined()) options.rounded_dq_BTHK.copy_(sums.dq_BTHK);
  if (options.rounded_dk_BUGK.defined()) options.rounded_dk_BUGK.copy_(sums.dk_BUGK);
  if (options.rounded_dv_BUGK.defined()) options.rounded_dv_BUGK.copy_(sums.dv_BUGK);
}

}  // namespace

bool AttentionBlockBackward(const QueryGradientBlock& queries, const KeyBlock& keys, double scale,
                            const AttentionGradientSums& sums, const Progress& progress,
                            const AttentionGradientOptions& options, const NextQueries* next) {
  CheckArguments(queries, keys, scale, sums, options);
  if (queries.queries.q_BTHK.numel() == 0 || keys.k_BUGK.numel() == 0) {
    KeepGradients(sums, options);
    return false;
  }
  const AttentionTiling tiling(queries.queries, keys);
  const QuerySums query_sums{sums.dq_BTHK.data_ptr<float>(), Data(options.rounded_dq_BTHK),
                             options.set_queries};
  KeySums key_sums{sums.dk_BUGK.data_ptr<float>(), sums.dv_BUGK.data_ptr<float>(), nullptr, nullptr,
                   options.set_keys};
  BackwardPass pass(tiling, keys, SafeScale(scale), progress);
  // Packed queries of one pass stay within 64 MiB. Keys are set by the first pass and rounded by
  // the last, which is also the one that other queries may join.
  const int64_t step = TilesPerPass(tiling), tiles = tiling.query_tile_count();
  int64_t first = 0;
  for (; first + step < tiles; first += step) {
    QueryTiles some(tiling, queries, query_sums, first, first + step);
    pass.Run({&some}, 0, key_sums, nullptr);
    key_sums.set = false;
  }
  QueryTiles rest(tiling, queries, query_sums, first, tiles);
  key_sums.rounded_dk_BUGK = Data(options.rounded_dk_BUGK);
  key_sums.rounded_dv_BUGK = Data(options.rounded_dv_BUGK);
  if (!next) {
    pass.Run({&rest}, 0, key_sums, nullptr);
    return false;
  }
  JoiningTiles<QueryTiles> joining = QueriesOf(*next, keys);
  const int64_t done = pass.Run({&rest}, 0, key_sums, &joining);
  if (!joining.there()) return false;
  key_sums.rounded_dk_BUGK = Data(next->rounded_dk_BUGK);
  key_sums.rounded_dv_BUGK = Data(next->rounded_dv_BUGK);
  pass.Run({&rest, &joining.tiles()}, done, key_sums, nullptr);
  return true;
}

}  // namespace lwm::ops
