#include "lwm/kernels/attention/bf16.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/avx512-inl.h"
#include "lwm/kernels/tile_layout.h"

LWM_BF16_BEGIN
namespace lwm::kernels {
namespace {

// A patch is 128 queries x 128 keys: the sums dk, dv and dq are loaded and stored once per 128
// terms, and its p and ds (96 KB of bf16) fit the second-level cache.
constexpr int kPatchBlocks = 4;  // of 32 queries, and of 32 keys
constexpr ptrdiff_t kPatch = 32 * kPatchBlocks;
constexpr ptrdiff_t kKeyBlockPairs = kPatch * 32;  // p of 32 keys and all queries of a patch
static_assert(3 * kPatch * kPatch <= kAvx512BackwardPairs);

// The constants of one row's softmax. A query that saw nothing has lse = -inf; its shift is +inf,
// so that p = 2^-inf = 0.
struct RowSoftmax {
  RowSoftmax(float scale, float lse, float delta)
      : shift(_mm512_set1_ps(lse == kMinusInfinity ? -kMinusInfinity : lse * kLog2E)),
        scaled_delta(_mm512_set1_ps(delta * scale)) {}
  __m512 shift, scaled_delta;
};

// p and ds of 16 keys of a row.
struct Weights {
  __m512 p, ds;
};

// Works through patches of up to 128 queries x 128 keys. For 32 queries at a time, s and dp become
// p and ds, rounded, which are the left factors of the gradients: in pairs of queries for dv and dk
// (sums over queries), ds also in pairs of keys for dq (a sum over keys). Blocks of 32 x 32 that
// nobody sees are left out everywhere.
class Patches {
 public:
  Patches(const Bf16TileShape& shape, const Avx512BackwardTask& task, const Bf16Scratch& scratch)
      : shape_(shape),
        task_(task),
        mask_(task.mask, shape.keys),
        s_(scratch.s),
        dp_(s_ + 32 * kPatch),
        dq_(dp_ + 32 * kPatch),
        p_pairs_(scratch.p),
        ds_pairs_(p_pairs_ + kPatch * kPatch),
        ds_rows_(ds_pairs_ + kPatch * kPatch),
        factor_(_mm512_set1_ps(task.scale * kLog2E)),
        scale_(_mm512_set1_ps(task.scale)) {}

  void Run() {
    for (row_ = 0; row_ < shape_.rows; row_ += kPatch) {
      row_blocks_ = std::min(kPatchBlocks, (shape_.rows - row_) / 32);
      std::fill_n(dq_started_, kPatchBlocks, false);
      for (int i = 0; i < row_blocks_; ++i) active_[i] = mask_.Active(row_ + 32 * i);
      // All keys for these queries, so that dq stays in scratch and is added to its rows once.
      for (key_ = 0; key_ < shape_.keys; key_ += kPatch) ComputePatch();
      AddToQueries();
    }
  }

 private:
  void ComputePatch() {
    key_blocks_ = std::min(kPatchBlocks, (shape_.keys - key_) / 32);
    for (int i = 0; i < row_blocks_; ++i) {
      const ActiveBlocks keys = Of(active_[i]);
      std::fill_n(seen_[i], kPatchBlocks, false);
      for (int j = 0; j < keys.count; ++j) seen_[i][keys.block[j]] = true;
      ForEachRun(keys, kPatchBlocks, [&](int first, int count) {
        Scores(i, keys.block[first], count);
        Softmax(i, keys, first, count);
        QueryGradients(i, keys.block[first], count);
      });
    }
    // The gradients of the keys when p and ds of all queries of the patch are there.
    for (int j = 0; j < key_blocks_; ++j) {
      ActiveBlocks queries;
      for (int i = 0; i < row_blocks_; ++i) {
        if (seen_[i][j]) queries.block[queries.count++] = i;
      }
      ForEachRun(queries, kPatchBlocks,
                 [&](int first, int count) { KeyGradients(j, queries.block[first], count); });
    }
  }

  // Those of the blocks that are in this patch, counted from its first.
  ActiveBlocks Of(const ActiveBlocks& all) const {
    ActiveBlocks here;
    const int first = key_ / 32;
    for (int j = 0; j < all.count; ++j) {
      if (all.block[j] < first || all.block[j] >= first + key_blocks_) continue;
      here.block[here.count] = all.block[j] - first;
      here.masked[here.count++] = all.masked[j];
    }
    return here;
  }

  void Scores(int i, int block, int count) const {
    const ptrdiff_t dim = shape_.dim, columns = 16 * dim;  // of k^T, v^T, 16 of them
    const ptrdiff_t q = (row_ + 32 * i) * dim, k = (key_ / 16 + 2 * block) * columns;
    const int pairs = shape_.dim / 2;
    MultiplyBlock({task_.q_RK + q, dim, 2}, {task_.k_pairs + k, columns}, pairs, 2 * count,
                  {s_ + 32 * block, kPatch}, false);
    MultiplyBlock({task_.dout_RK + q, dim, 2}, {task_.v_pairs + k, columns}, pairs, 2 * count,
                  {dp_ + 32 * block, kPatch}, false);
  }

  // Queries r and 16 + r of 32 together: they are a pair of the gradients of the keys.
  void Softmax(int i, const ActiveBlocks& keys, int first, int count) const {
    for (int r = 0; r < 16; ++r) {
      const int row = row_ + 32 * i + r;
      const RowSoftmax upper(task_.scale, task_.lse_R[row], task_.delta_R[row]);
      const RowSoftmax lower(task_.scale, task_.lse_R[row + 16], task_.delta_R[row + 16]);
      for (int b = first; b < first + count; ++b) {
        const int block = keys.block[b];
        Weights w[2][2];  // of the two queries, of 16 keys each
        for (int half = 0; half < 2; ++half) {
          const ptrdiff_t at = r * kPatch + 32 * block + 16 * half;
          w[0][half] = Of(upper, at);
          w[1][half] = Of(lower, at + 16 * kPatch);
          if (!keys.masked[b]) continue;
          const int key = key_ + 32 * block + 16 * half;
          Keep(mask_.Seen(row, key), w[0][half]);
          Keep(mask_.Seen(row + 16, key), w[1][half]);
        }
        StoreWeights(i, r, block, w);
      }
    }
  }

  inline Weights Of(const RowSoftmax& row, ptrdiff_t at) const {
    const __m512 p = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s_ + at), factor_, row.shift));
    const __m512 dp = _mm512_fmsub_ps(_mm512_load_ps(dp_ + at), scale_, row.scaled_delta);
    return {p, _mm512_mul_ps(p, dp)};
  }
  // Hides by selection: p of a hidden key may be Inf or NaN, which a factor of 0 would not remove.
  static inline void Keep(__mmask16 seen, Weights& w) {
    w.p = _mm512_maskz_mov_ps(seen, w.p);
    w.ds = _mm512_maskz_mov_ps(seen, w.ds);
  }
  // Rounds p and ds and stores them in the layouts that the three products read.
  inline void StoreWeights(int i, int r, int block, const Weights (&w)[2][2]) const {
    const ptrdiff_t pair = block * kKeyBlockPairs + (16 * i + r) * 64;
    for (int half = 0; half < 2; ++half) {
      _mm512_store_si512(p_pairs_ + pair + 32 * half, pairs_(w[0][half].p, w[1][half].p));
      _mm512_store_si512(ds_pairs_ + pair + 32 * half, pairs_(w[0][half].ds, w[1][half].ds));
    }
    uint16_t* const rows = ds_rows_ + (32 * i + r) * kPatch + 32 * block;
    _mm512_store_si512(rows, pairs_(w[0][0].ds, w[0][1].ds));
    _mm512_store_si512(rows + 16 * kPatch, pairs_(w[1][0].ds, w[1][1].ds));
  }

  // dq += ds k.
  void QueryGradients(int i, int block, int count) {
    const ptrdiff_t dim = shape_.dim;
    MultiplyBlock(
        {ds_rows_ + 32 * i * kPatch + 32 * block, kPatch, 2},
        {task_.k_NK_pairs + (key_ / 32 + block) * kRegister, shape_.keys / 32 * kRegister},
        16 * count, shape_.dim / 16, {dq_ + 32 * i * dim, dim}, dq_started_[i]);
    dq_started_[i] = true;
  }

  // dv += p^T dout, dk += ds^T q.
  void KeyGradients(int j, int block, int count) {
    const ptrdiff_t dim = shape_.dim, left = j * kKeyBlockPairs + block * 16 * 64;
    const ptrdiff_t right = (row_ / 32 + block) * kRegister, next = shape_.rows / 32 * kRegister;
    const ptrdiff_t key = (key_ + 32 * j) * dim;
    bool& started = task_.keys_started[key_ / 32 + j];
    MultiplyBlock({p_pairs_ + left, 2, 64}, {task_.dout_RK_pairs + right, next}, 16 * count,
                  shape_.dim / 16, {task_.dv_NK + key, dim}, started);
    MultiplyBlock({ds_pairs_ + left, 2, 64}, {task_.q_RK_pairs + right, next}, 16 * count,
                  shape_.dim / 16, {task_.dk_NK + key, dim}, started);
    started = true;
  }

  // Rows of dq lie apart and may be missing, so products cannot write to them.
  void AddToQueries() const {
    for (int r = 0; r < 32 * row_blocks_; ++r) {
      float* const dq_K = task_.dq_rows[row_ + r];
      if (dq_K && dq_started_[r / 32]) AddRow(dq_ + r * shape_.dim, task_.head_dim, dq_K);
    }
  }

  const Bf16TileShape& shape_;
  const Avx512BackwardTask& task_;
  const BlockMask mask_;
  float *const s_, *const dp_;  // [32][kPatch]
  float* const dq_;             // [kPatch][dim]
  // [keys / 32][queries / 2][32] pairs of queries, twice, and [queries][keys] in pairs of keys.
  uint16_t *const p_pairs_, *const ds_pairs_, *const ds_rows_;
  const __m512 factor_, scale_;
  const PairsOfHalves pairs_;
  int row_ = 0, key_ = 0, row_blocks_ = 0, key_blocks_ = 0;  // of the patch
  ActiveBlocks active_[kPatchBlocks];
  bool seen_[kPatchBlocks][kPatchBlocks];
  bool dq_started_[kPatchBlocks];
};

}  // namespace

void Avx512Backward(const Bf16TileShape& shape, const Avx512BackwardTask& task,
                    const Bf16Scratch& scratch) noexcept {
  Patches(shape, task, scratch).Run();
}

}  // namespace lwm::kernels
LWM_BF16_END

#endif
