#include "lwm/kernels/attention/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include "lwm/kernels/attention/amx-inl.h"

LWM_AMX_BEGIN
namespace lwm::kernels {
namespace {

// Which factor of a product is read only once. It is loaded by TILELOADDT1, a hint that it need not
// stay in the nearest cache (Intel SDM), and so leaves the reused factor in L1.
enum class Once { kLeft, kRight };

// Loads the first or second half of a factor. Templates, since the number of a tile register is
// part of the instruction.
template <Once kOnce, int kHalf>
inline void LoadLeft(const uint16_t* a) {
  if constexpr (kOnce == Once::kLeft) {
    if constexpr (kHalf == 0) _tile_stream_loadd(4, a, 64);
    if constexpr (kHalf == 1) _tile_stream_loadd(5, a, 64);
  } else {
    if constexpr (kHalf == 0) _tile_loadd(4, a, 64);
    if constexpr (kHalf == 1) _tile_loadd(5, a, 64);
  }
}
template <Once kOnce, int kHalf>
inline void LoadRight(const uint16_t* b) {
  if constexpr (kOnce == Once::kRight) {
    if constexpr (kHalf == 0) _tile_stream_loadd(6, b, 64);
    if constexpr (kHalf == 1) _tile_stream_loadd(7, b, 64);
  } else {
    if constexpr (kHalf == 0) _tile_loadd(6, b, 64);
    if constexpr (kHalf == 1) _tile_loadd(7, b, 64);
  }
}

// A factor of a product: blocks of 32 x 32. The first halves lie one register after another from
// `at` on, the second halves `next` numbers further.
struct Factor {
  const uint16_t* at;
  ptrdiff_t next;
};

// Computes one product after another, each the sum over the given blocks of both factors. A
// product's sums stay in registers until the next one begins, which stores them while it starts to
// multiply. The first product finds sums of no product: they go to `unused`.
class Products {
 public:
  explicit Products(float* unused) : unused_(unused), done_(unused) {}

  template <Once kOnce, class Tick>
  inline void Add(const Factor& a, const Factor& b, const int* block, int count, bool from_zero,
                  float* sums, const Tick& tick) {
    const ptrdiff_t first = block[0] * kRegister;
    if (from_zero) {
      Begin<kOnce, true>(a.at + first, a.next, b.at + first, b.next, sums);
    } else {
      Begin<kOnce, false>(a.at + first, a.next, b.at + first, b.next, sums);
    }
    tick();
    for (int i = 1; i < count; ++i) {
      const uint16_t *left = a.at + block[i] * kRegister, *right = b.at + block[i] * kRegister;
      LoadRight<kOnce, 0>(right);
      LoadLeft<kOnce, 0>(left);
      LoadRight<kOnce, 1>(right + b.next);
      _tile_dpbf16ps(0, 4, 6);
      LoadLeft<kOnce, 1>(left + a.next);
      _tile_dpbf16ps(1, 4, 7);
      _tile_dpbf16ps(2, 5, 6);
      _tile_dpbf16ps(3, 5, 7);
      tick();
    }
  }
  void Finish() {
    StoreSums(done_, 32);
    Fence();
    done_ = unused_;
  }

 private:
  // Each sum register is stored, reloaded and multiplied into before the next one is stored: the
  // first products then run while the other sums are still being stored.
  template <Once kOnce, bool kFromZero>
  inline void Begin(const uint16_t* a, ptrdiff_t a_next, const uint16_t* b, ptrdiff_t b_next,
                    float* sums) {
    LoadRight<kOnce, 0>(b);
    LoadLeft<kOnce, 0>(a);
    LoadRight<kOnce, 1>(b + b_next);
    LoadLeft<kOnce, 1>(a + a_next);
#define LWM_NEXT_SUM(sum, at, left, right) \
  _tile_stored(sum, done_ + (at), 128);    \
  if constexpr (kFromZero) {               \
    _tile_zero(sum);                       \
  } else {                                 \
    _tile_loadd(sum, sums + (at), 128);    \
  }                                        \
  _tile_dpbf16ps(sum, left, right)
    LWM_NEXT_SUM(0, 0, 4, 6);
    LWM_NEXT_SUM(1, 16, 4, 7);
    LWM_NEXT_SUM(2, 512, 5, 6);
    LWM_NEXT_SUM(3, 528, 5, 7);
#undef LWM_NEXT_SUM
    done_ = sums;
  }

  float *const unused_, *done_;
};

// Rounds to nearest, ties away from zero: the bf16 number is the upper half of every lane. Ties to
// even would take more instructions.
inline __m512i RoundUpper(__m512 x) {
  return _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
}

// Upper halves of both, alternating: two rows become a row of pairs, as the right factor wants
// them. Cheaper than the conversion instruction, which needs a shuffle after it.
inline __m512i Alternate(__m512i even, __m512i odd) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_ternarylogic_epi32(upper, odd, _mm512_srli_epi32(even, 16), 0xea);  // a & b | c
}

// 16 numbers of p and ds, as RoundUpper gives them. Hidden ones become 0 by selection, not by a
// factor of 0: their scores may be anything, and 0 x Inf would be NaN.
struct Numbers16 {
  inline void Keep(__mmask16 seen) {
    p = _mm512_maskz_mov_epi32(seen, p);
    ds = _mm512_maskz_mov_epi32(seen, ds);
  }
  __m512i p, ds;
};

// The constants of one row: p = 2^(s scale log2(e) - shift), where shift is the row's log-sum-exp
// in powers of 2, and ds = p (dp scale - delta scale). Scale and log2(e) are folded in, so that
// both start with one fused multiply-subtract.
struct RowSoftmax {
  inline RowSoftmax(float row_scale, float row_shift, float row_scaled_delta)
      : factor(_mm512_set1_ps(row_scale * kLog2E)),
        scale(_mm512_set1_ps(row_scale)),
        shift(_mm512_set1_ps(row_shift)),
        scaled_delta(_mm512_set1_ps(row_scaled_delta)) {}

  inline Numbers16 Of(const float* s, const float* dp) const {
    const __m512 p = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s), factor, shift));
    const __m512 ds = _mm512_mul_ps(p, _mm512_fmsub_ps(_mm512_load_ps(dp), scale, scaled_delta));
    return {RoundUpper(p), RoundUpper(ds)};
  }

  __m512 factor, scale, shift, scaled_delta;
};

// Turns the scores of 32 queries and 32 keys into p and ds, two rows at a time: two queries are a
// pair of the gradients of the keys. ds is stored twice, in pairs of queries for dk and in rows for
// dq, since dk sums over the queries and dq over the keys.
struct BlockSoftmax {
  const float *s = nullptr, *dp = nullptr;  // blocks of [32][32]
  const float *shift_R = nullptr, *scaled_delta_R = nullptr;
  uint16_t *p_pairs = nullptr, *ds_pairs = nullptr, *ds_rows = nullptr;
  ptrdiff_t pairs_next = 0, rows_next = 0;  // where their second 16 keys, or rows, are
  const BlockMask* mask = nullptr;          // nullptr: every query sees every key
  int row = 0, key = 0;
  int left = 0;  // rows

  inline void TwoRows(float scale) {
    const RowSoftmax even(scale, shift_R[0], scaled_delta_R[0]);
    const RowSoftmax odd(scale, shift_R[1], scaled_delta_R[1]);
    Numbers16 x[2][2] = {{even.Of(s, dp), even.Of(s + 16, dp + 16)},
                         {odd.Of(s + 32, dp + 32), odd.Of(s + 48, dp + 48)}};
    if (mask) {
      x[0][0].Keep(mask->Seen(row, key));
      x[0][1].Keep(mask->Seen(row, key + 16));
      x[1][0].Keep(mask->Seen(row + 1, key));
      x[1][1].Keep(mask->Seen(row + 1, key + 16));
    }
    _mm512_store_si512(p_pairs, Alternate(x[0][0].p, x[1][0].p));
    _mm512_store_si512(p_pairs + pairs_next, Alternate(x[0][1].p, x[1][1].p));
    _mm512_store_si512(ds_pairs, Alternate(x[0][0].ds, x[1][0].ds));
    _mm512_store_si512(ds_pairs + pairs_next, Alternate(x[0][1].ds, x[1][1].ds));
    _mm512_store_si512(ds_rows, Alternate(x[0][0].ds, x[0][1].ds));
    _mm512_store_si512(ds_rows + 32, Alternate(x[1][0].ds, x[1][1].ds));
    NextRows();
  }

 private:
  inline void NextRows() {
    s += 64;
    dp += 64;
    shift_R += 2;
    scaled_delta_R += 2;
    p_pairs += 32;
    ds_pairs += 32;
    ds_rows += 64;
    row += 2;
    left -= 2;
    // A register has 16 rows: the other 16 queries are in the next row of registers.
    if (left == 16) ds_rows += rows_next - kRegister;
  }
};

// The blocks of 32 queries that see some of 32 keys.
struct KeyBlock {
  int count = 0;
  int rows[kMaxBlocks];
  bool masked[kMaxBlocks];
};

// Products and softmax of a tile pair, interleaved: while the tile registers multiply, the vector
// registers work on the scores of the step before.
//
//   for each 32 keys, and 32 queries at a time:
//       scores                          (and softmax of the scores before)
//   after the first scores of these keys:
//       gradients of the keys before    (and softmax of the first scores)
//   in the end:
//       gradients of the last keys, then of the queries
//
// The gradients of the keys come one block of keys late: by then every p and ds of that block is
// there. p and ds of two blocks of keys are kept, by turns.
// The gradients of the queries come last, when the ds of all keys are there: each sum then passes
// once through the registers and is added to dq once, in whatever rows dq lies.
//
// Operands reused within a phase stay in L1: 32 keys during the scores, p or ds of 32 keys during
// the gradients of the keys, ds of 32 queries at the end.
class TilePair {
 public:
  TilePair(const Bf16TileShape& shape, const AmxBackwardTask& task, const BlockMask& mask,
           const Bf16Scratch& scratch, const float* shift_R, const float* scaled_delta_R)
      : shape_(shape),
        task_(task),
        mask_(mask),
        shift_R_(shift_R),
        scaled_delta_R_(scaled_delta_R),
        steps_(shape.dim / 32),
        softmax_share_((8 + steps_ - 1) / steps_),
        pairs_next_(shape.rows / 32 * kRegister),
        rows_next_(shape.keys / 32 * kRegister),
        scores_(scratch.s),
        sums_(scratch.s + 4 * 1024),
        p_pairs_(scratch.p),
        ds_pairs_(scratch.p + 4 * pairs_next_),
        ds_rows_(scratch.p + 8 * pairs_next_),
        products_(scratch.s + 6 * 1024),
        fetch_(static_cast<const char*>(task.next_queries)) {
    for (int i = 0; i < kMaxBlocks; ++i) in_order_[i] = i;
    // The mask lists keys by queries; the gradients of the keys need queries by keys.
    for (int r = 0; r < shape_.rows / 32; ++r) {
      active_[r] = mask_.Active(32 * r);
      for (int i = 0; i < active_[r].count; ++i) {
        KeyBlock& keys = keys_[active_[r].block[i]];
        keys.rows[keys.count] = r;
        keys.masked[keys.count++] = active_[r].masked[i];
      }
    }
    // The next queries come into the second-level cache in equal pieces, one with every two rows of
    // softmax, so that prefetches do not crowd out the loads of the products.
    const ptrdiff_t pieces = ptrdiff_t{shape.rows / 2} * (shape.keys / 32);
    const ptrdiff_t bytes = ptrdiff_t{8} * shape.rows * shape.dim;
    fetch_bytes_ = fetch_ ? (bytes / pieces + 63) / 64 * 64 : 0;
    fetch_end_ = fetch_ + (fetch_ ? bytes : 0);
  }

  void Run() {
    for (int keys = 0; keys < shape_.keys / 32; ++keys) {
      if (keys_[keys].count > 0) AddKeys(keys);
    }
    products_.Finish();
    FinishSoftmax();
    FetchRows(0);
    AddKeyGradients();
    for (int r = 0; r < shape_.rows / 32; ++r) AddQueryGradients(r);
    products_.Finish();
    AddToRows();
  }

 private:
  void AddKeys(int keys) {
    const KeyBlock& block = keys_[keys];
    for (int i = 0; i < block.count; ++i) {
      float *s = scores_ + turn_ * 2048, *dp = s + 1024;
      const ptrdiff_t at = ptrdiff_t{32} * block.rows[i] * shape_.dim;
      Scores(task_.q_RK_rows + at, task_.k_pairs, keys, s);
      Scores(task_.dout_RK_rows + at, task_.v_pairs, keys, dp);
      // The scores before must be done before softmax_ turns to these. The last sums, dp, are still
      // in registers: the next product stores them, before its first two rows of softmax.
      FinishSoftmax();
      StartSoftmax(keys, block.rows[i], block.masked[i], s, dp);
      if (i == 0) AddKeyGradients();
      turn_ ^= 1;  // the next scores go to the other pair of blocks
    }
    before_ = keys;
    slot_ ^= 1;
  }

  inline void Scores(const uint16_t* x, const uint16_t* y_pairs, int keys, float* out) {
    const ptrdiff_t next = steps_ * kRegister;
    products_.Add<Once::kLeft>({x, next}, {y_pairs + 2 * keys * next, next}, in_order_, steps_,
                               true, out, [this] { Softmax(softmax_share_); });
  }

  void StartSoftmax(int keys, int r, bool masked, const float* s, const float* dp) {
    const ptrdiff_t pairs = 2 * slot_ * pairs_next_ + r * kRegister;
    softmax_ = {s,
                dp,
                shift_R_ + 32 * r,
                scaled_delta_R_ + 32 * r,
                p_pairs_ + pairs,
                ds_pairs_ + pairs,
                ds_rows_ + 2 * r * rows_next_ + keys * kRegister,
                pairs_next_,
                rows_next_,
                masked ? &mask_ : nullptr,
                32 * r,
                32 * keys,
                32};
  }

  void AddKeyGradients() {
    if (before_ < 0) return;
    const ptrdiff_t slot = 2 * (slot_ ^ 1) * pairs_next_;
    AddKeyGradient(task_.dout_KR_rows, p_pairs_ + slot, task_.dv_KN);
    AddKeyGradient(task_.q_KR_rows, ds_pairs_ + slot, task_.dk_KN);
    task_.keys_started[before_] = true;
  }

  // sums_KN += x_KR y_RN for the keys before, over the queries that see them.
  inline void AddKeyGradient(const uint16_t* x_KR_rows, const uint16_t* y_pairs, float* sums_KN) {
    const KeyBlock& keys = keys_[before_];
    for (int k = 0; k < steps_; ++k) {
      float* sums = sums_KN + (ptrdiff_t{k} * (shape_.keys / 32) + before_) * 1024;
      products_.Add<Once::kLeft>({x_KR_rows + 2 * k * pairs_next_, pairs_next_},
                                 {y_pairs, pairs_next_}, keys.rows, keys.count,
                                 !task_.keys_started[before_], sums, [this] { Softmax(1); });
    }
  }

  void AddQueryGradients(int r) {
    const ActiveBlocks& active = active_[r];
    if (active.count == 0) return;
    FetchRows(32 * (r + 1));
    for (int k = 0; k < steps_; ++k) {
      float* sums = sums_ + turn_ * 1024;
      products_.Add<Once::kRight>({ds_rows_ + 2 * r * rows_next_, rows_next_},
                                  {task_.k_NK_pairs + 2 * k * rows_next_, rows_next_}, active.block,
                                  active.count, true, sums, [] {});
      AddToRows();
      rows_sums_ = sums;
      rows_at_ = 32 * r;
      rows_k_ = 32 * k;
      turn_ ^= 1;
    }
  }

  // Adds the query gradient before the last one to dq: its sums were stored when the last product
  // began. Rows of dq end at head_dim, so what padding adds is masked off.
  void AddToRows() {
    if (!rows_sums_) return;
    Fence();
    const float* sums = rows_sums_;
    const int k = rows_k_;
    const __mmask16 low = Columns(task_.head_dim - k), high = Columns(task_.head_dim - k - 16);
    for (int r = rows_at_; r < rows_at_ + 32; ++r, sums += 32) {
      if (!task_.dq_rows[r]) continue;
      float* dq = task_.dq_rows[r] + k;
      const __m512 a = _mm512_maskz_loadu_ps(low, dq), b = _mm512_maskz_loadu_ps(high, dq + 16);
      _mm512_mask_storeu_ps(dq, low, _mm512_add_ps(a, _mm512_load_ps(sums)));
      _mm512_mask_storeu_ps(dq + 16, high, _mm512_add_ps(b, _mm512_load_ps(sums + 16)));
    }
  }
  static __mmask16 Columns(int count) {
    return static_cast<__mmask16>(count >= 16 ? 0xffff : count <= 0 ? 0 : (1 << count) - 1);
  }
  // Rows of dq lie apart in memory, so the hardware prefetcher does not find them.
  void FetchRows(int row) const {
    if (row >= shape_.rows) return;
    for (int r = row; r < row + 32; ++r) {
      const float* dq = task_.dq_rows[r];
      for (int k = 0; dq && k < task_.head_dim; k += 16) _mm_prefetch(dq + k, _MM_HINT_T1);
    }
  }

  // Called while a product is under way, with its share of the softmax: so many times two rows.
  inline void Softmax(int share) {
    for (; share > 0 && softmax_.left > 0; --share) TwoRows();
  }
  void FinishSoftmax() { Softmax(16); }
  // Not inlined: the loops of products need the general registers for their addresses.
  __attribute__((noinline)) void TwoRows() {
    for (const char* end = std::min(fetch_ + fetch_bytes_, fetch_end_); fetch_ < end; fetch_ += 64)
      _mm_prefetch(fetch_, _MM_HINT_T1);
    softmax_.TwoRows(task_.scale);
  }

  const Bf16TileShape& shape_;
  const AmxBackwardTask& task_;
  const BlockMask& mask_;
  const float *const shift_R_, *const scaled_delta_R_;
  const int steps_;          // of 32 numbers of a row
  const int softmax_share_;  // per product, so that it ends with 2 * steps_ products
  const ptrdiff_t pairs_next_, rows_next_;
  float *const scores_, *const sums_;                           // two blocks each, by turns
  uint16_t *const p_pairs_, *const ds_pairs_, *const ds_rows_;  // pairs of two blocks of keys
  Products products_;
  BlockSoftmax softmax_;
  ActiveBlocks active_[kMaxBlocks];  // of 32 queries each
  KeyBlock keys_[kMaxBlocks];
  int in_order_[kMaxBlocks];
  int before_ = -1;  // keys whose gradients are to be added
  int slot_ = 0;     // of p and ds, of the keys whose scores are computed
  int turn_ = 0;     // of scores and sums
  const float* rows_sums_ = nullptr;
  int rows_at_ = 0, rows_k_ = 0;
  const char *fetch_, *fetch_end_;
  ptrdiff_t fetch_bytes_;
};

}  // namespace

void AmxBackward(const Bf16TileShape& shape, const AmxBackwardTask& task,
                 const Bf16Scratch& scratch) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(task.mask, shape.keys);
  float shift_R[kMaxRows], scaled_delta_R[kMaxRows];
  for (int r = 0; r < shape.rows; ++r) {
    // A query that saw nothing has lse = -inf. Its shift is +inf, so p = 2^-inf = 0, not 2^inf.
    shift_R[r] = task.lse_R[r] == kMinusInfinity ? -kMinusInfinity : task.lse_R[r] * kLog2E;
    scaled_delta_R[r] = task.delta_R[r] * task.scale;
  }
  TilePair(shape, task, block_mask, scratch, shift_R, scaled_delta_R).Run();
}

}  // namespace lwm::kernels
LWM_AMX_END

#endif
