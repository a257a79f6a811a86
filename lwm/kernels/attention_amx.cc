#include "lwm/kernels/attention_amx.h"

#if defined(__x86_64__) && defined(__linux__)

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own AVX-512 headers start from deliberately undefined registers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <cpuid.h>
#include <immintrin.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <cmath>
#include <cstring>
#include <limits>

namespace lwm::kernels {
namespace {

bool AskForAmx() {
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0 || (b & kAvx512) != kAvx512) return false;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & 1u << 5) == 0) return false;  // AVX512-BF16
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool AmxAvailable() noexcept {
  static const bool available = AskForAmx();
  return available;
}

}  // namespace lwm::kernels

#if defined(__clang__)
#pragma clang attribute push(                                                                   \
    __attribute__((target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"))), \
    apply_to = function)
#else
#pragma GCC push_options
#pragma GCC target("avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16")
#endif

namespace lwm::kernels {
namespace {

constexpr float kLog2E = 1.44269504f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int kMaxBlocks = 32;  // of 32 keys or queries in a tile
constexpr int kMaxRows = 32 * kMaxBlocks;
constexpr ptrdiff_t kRegister = 512;  // bf16 numbers of a tile register

// Tile registers 0 to 3 hold sums [2 x 2], 4 and 5 the left factor, 6 and 7 the right one.
class TileRegisters {
 public:
  TileRegisters() {
    struct alignas(64) {
      uint8_t palette = 1, start_row = 0, reserved[14] = {};
      uint16_t row_bytes[16] = {64, 64, 64, 64, 64, 64, 64, 64};
      uint8_t rows[16] = {16, 16, 16, 16, 16, 16, 16, 16};
    } config;
    asm volatile("" ::"m"(config) : "memory");
    _tile_loadconfig(&config);
  }
  ~TileRegisters() { _tile_release(); }
};

// The stores before become visible to tile loads, which the compiler does not know to read memory.
inline void Fence() { asm volatile("" ::: "memory"); }

inline void ZeroSums() {
  _tile_zero(0);
  _tile_zero(1);
  _tile_zero(2);
  _tile_zero(3);
}

inline void LoadSums(const float* c, ptrdiff_t row_floats) {
  const ptrdiff_t stride = row_floats * 4;
  _tile_loadd(0, c, stride);
  _tile_loadd(1, c + 16, stride);
  _tile_loadd(2, c + 16 * row_floats, stride);
  _tile_loadd(3, c + 16 * row_floats + 16, stride);
}

inline void StoreSums(float* c, ptrdiff_t row_floats) {
  const ptrdiff_t stride = row_floats * 4;
  _tile_stored(0, c, stride);
  _tile_stored(1, c + 16, stride);
  _tile_stored(2, c + 16 * row_floats, stride);
  _tile_stored(3, c + 16 * row_floats + 16, stride);
}

// sums [32 x 32] += a [32 x 32] b [32 x 32]; the second half of a and b lies a_next, b_next
// further.
inline void Multiply(const uint16_t* a, ptrdiff_t a_stride_bytes, ptrdiff_t a_next,
                     const uint16_t* b, ptrdiff_t b_next) {
  _tile_loadd(6, b, 64);
  _tile_loadd(4, a, a_stride_bytes);
  _tile_loadd(7, b + b_next, 64);
  _tile_dpbf16ps(0, 4, 6);
  _tile_loadd(5, a + a_next, a_stride_bytes);
  _tile_dpbf16ps(1, 4, 7);
  _tile_dpbf16ps(2, 5, 6);
  _tile_dpbf16ps(3, 5, 7);
}

// 2^x, relative error 7.5e-5 (minimax of 2^f on [0, 1)); 0 for -inf, NaN for NaN.
inline __m512 Exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(0.07802452118f), f, _mm512_set1_ps(0.2260671575f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.6958335398f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.9999252186f));
  return _mm512_scalef_ps(y, x);
}

inline __m512i ToBf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

struct Extremes {
  bool any = false, every = true;
  int32_t min_index = std::numeric_limits<int32_t>::max(), max_index = -1;
  int32_t min_begin = std::numeric_limits<int32_t>::max(), max_begin = -1;
};

Extremes ExtremesOf(const int32_t* index, const int32_t* begin) {
  Extremes e;
  for (int i = 0; i < 32; ++i) {
    if (index[i] < 0) {
      e.every = false;
      continue;
    }
    e.any = true;
    e.min_index = std::min(e.min_index, index[i]);
    e.max_index = std::max(e.max_index, index[i]);
    if (begin) e.min_begin = std::min(e.min_begin, begin[i]);
    if (begin) e.max_begin = std::max(e.max_begin, begin[i]);
  }
  return e;
}

// The blocks of 32 keys that a block of 32 queries sees at all.
struct ActiveBlocks {
  int count = 0;
  int block[kMaxBlocks];
  bool masked[kMaxBlocks];
};

class BlockMask {
 public:
  BlockMask(const TileMask* mask, int keys) : mask_(mask), blocks_(keys / 32) {
    for (int j = 0; mask && j < blocks_; ++j) {
      keys_[j] = ExtremesOf(mask->key_index_N + 32 * j, nullptr);
    }
  }

  ActiveBlocks Active(int row) const {
    ActiveBlocks active;
    const Extremes q = mask_ ? ExtremesOf(mask_->index_R + row, mask_->begin_R + row) : Extremes();
    for (int j = 0; j < blocks_; ++j) {
      bool masked = false;
      if (mask_) {
        const Extremes& k = keys_[j];
        if (!q.any || !k.any || k.min_index > q.max_index || k.max_index < q.min_begin) continue;
        masked = !(q.every && k.every && k.max_index <= q.min_index && k.min_index >= q.max_begin);
      }
      active.block[active.count] = j;
      active.masked[active.count++] = masked;
    }
    return active;
  }

  // Of the 16 keys from `key` on, those that the query sees.
  __mmask16 Seen(int row, int key) const {
    const __m512i index = _mm512_loadu_si512(mask_->key_index_N + key);
    return _mm512_cmpge_epi32_mask(index, _mm512_set1_epi32(mask_->begin_R[row])) &
           _mm512_cmple_epi32_mask(index, _mm512_set1_epi32(mask_->index_R[row]));
  }

 private:
  const TileMask* mask_;
  int blocks_;
  Extremes keys_[kMaxBlocks];
};

// Hides what a row may not see, then gives the largest score of the row.
inline float BlockRowMax(const BlockMask& mask, const ActiveBlocks& active, int row, int r,
                         float* s) {
  __m512 low = _mm512_set1_ps(kMinusInfinity), high = low;
  for (int i = 0; i < active.count; ++i) {
    float* at = s + i * 1024 + r * 32;
    __m512 a = _mm512_load_ps(at), b = _mm512_load_ps(at + 16);
    if (active.masked[i]) {
      const __m512 hidden = _mm512_set1_ps(kMinusInfinity);
      a = _mm512_mask_mov_ps(hidden, mask.Seen(row, active.block[i] * 32), a);
      b = _mm512_mask_mov_ps(hidden, mask.Seen(row, active.block[i] * 32 + 16), b);
      _mm512_store_ps(at, a);
      _mm512_store_ps(at + 16, b);
    }
    low = _mm512_max_ps(low, a);
    high = _mm512_max_ps(high, b);
  }
  return _mm512_reduce_max_ps(_mm512_max_ps(low, high));
}

// p of one row into blocks of [32][32]; returns its sum.
inline float BlockRowExp(const ActiveBlocks& active, int r, float factor, float shift,
                         const float* s, uint16_t* p) {
  const __m512 c = _mm512_set1_ps(factor), b = _mm512_set1_ps(shift);
  __m512 sum0 = _mm512_setzero_ps(), sum1 = sum0;
  for (int i = 0; i < active.count; ++i) {
    const float* at = s + i * 1024 + r * 32;
    const __m512 p0 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at), c, b));
    const __m512 p1 = Exp2(_mm512_fmsub_ps(_mm512_load_ps(at + 16), c, b));
    sum0 = _mm512_add_ps(sum0, p0);
    sum1 = _mm512_add_ps(sum1, p1);
    _mm512_store_si512(p + i * 1024 + r * 32, ToBf16(p0, p1));
  }
  return _mm512_reduce_add_ps(_mm512_add_ps(sum0, sum1));
}

// One block of 32 queries on its way: scores, then row by row their softmax, then their values.
struct QueryBlockState {
  int row = 0;
  ActiveBlocks active;
  float* s;
  int rows_done = 32;
};

struct RunningSoftmax {
  const BlockMask& mask;
  int dim;
  float scale;
  float *max_R, *sum_R, *acc_RK;
  uint16_t* p;
  const char* next_keys;  // fetched into the second-level cache, a share with every row
  ptrdiff_t next_bytes_per_row;

  inline void Row(const QueryBlockState& block, int r) const {
    const int row = block.row + r;
    for (ptrdiff_t at = 0; at < next_bytes_per_row; at += 64) {
      _mm_prefetch(next_keys + row * next_bytes_per_row + at, _MM_HINT_T1);
    }
    const float row_max = BlockRowMax(mask, block.active, row, r, block.s) * scale;
    float running = max_R[row];
    if (row_max > running) {
      const float decay = std::exp2((running - row_max) * kLog2E);
      const __m512 d = _mm512_set1_ps(decay);
      float* acc_K = acc_RK + static_cast<ptrdiff_t>(row) * dim;
      for (int k = 0; k < dim; k += 16) {
        _mm512_store_ps(acc_K + k, _mm512_mul_ps(d, _mm512_load_ps(acc_K + k)));
      }
      sum_R[row] *= decay;
      max_R[row] = running = row_max;
    }
    const float shift = running == kMinusInfinity ? 0.0f : running * kLog2E;
    sum_R[row] += BlockRowExp(block.active, r, scale * kLog2E, shift, block.s, p);
  }
  inline void RowsUpTo(QueryBlockState& block, int end) const {
    for (; block.rows_done < end; ++block.rows_done) Row(block, block.rows_done);
  }
};

// Scores of 32 queries with the active blocks, each stored as [32][32]. Between the products,
// between(done, all) does a share of other work, which the out-of-order core overlaps with them.
template <class Between>
inline void BlockScores(const uint16_t* q, int dim, const uint16_t* k_pairs,
                        const ActiveBlocks& active, float* s, const Between& between) {
  const int steps = dim / 32;
  for (int i = 0; i < active.count; ++i) {
    const uint16_t* k = k_pairs + active.block[i] * 2 * steps * kRegister;
    ZeroSums();
    for (int step = 0; step < steps; ++step) {
      Multiply(q + 32 * step, dim * 2, 16 * static_cast<ptrdiff_t>(dim), k + step * kRegister,
               steps * kRegister);
      between(i * steps + step + 1, active.count * steps);
    }
    StoreSums(s + i * 1024, 32);
  }
}

// acc [32, dim] += p v over the active blocks.
void BlockValues(const uint16_t* p, const uint16_t* v_pairs, int keys, int dim,
                 const ActiveBlocks& active, float* acc) {
  const ptrdiff_t key_steps = keys / 32;
  for (int k = 0; k < dim; k += 32) {
    LoadSums(acc + k, dim);
    const uint16_t* v = v_pairs + k / 16 * key_steps * kRegister;
    for (int i = 0; i < active.count; ++i) {
      Multiply(p + i * 1024, 64, kRegister, v + active.block[i] * kRegister, key_steps * kRegister);
    }
    StoreSums(acc + k, dim);
  }
}

}  // namespace

void AmxForward(const AmxShape& shape, const uint16_t* q_RK, const uint16_t* k_pairs,
                const uint16_t* v_pairs, const void* next_keys, float scale, const TileMask* mask,
                const AmxScratch& scratch, float* max_R, float* sum_R, float* acc_RK) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(mask, shape.keys);
  const RunningSoftmax softmax{block_mask,
                               shape.dim,
                               scale,
                               max_R,
                               sum_R,
                               acc_RK,
                               scratch.p,
                               static_cast<const char*>(next_keys),
                               next_keys ? ptrdiff_t{4} * shape.keys * shape.dim / shape.rows : 0};
  QueryBlockState blocks[2];
  blocks[0].s = scratch.s;
  blocks[1].s = scratch.s + 32 * shape.keys;
  // The softmax of a block is spread over the score products of the next one.
  for (int row = 0, turn = 0; row <= shape.rows; row += 32, turn ^= 1) {
    QueryBlockState &next = blocks[turn], &now = blocks[turn ^ 1];
    next.active.count = 0;
    if (row < shape.rows) {
      next.row = row;
      next.active = block_mask.Active(row);
      next.rows_done = next.active.count > 0 ? 0 : 32;
      BlockScores(q_RK + static_cast<ptrdiff_t>(row) * shape.dim, shape.dim, k_pairs, next.active,
                  next.s, [&](int done, int all) { softmax.RowsUpTo(now, 32 * done / all); });
    }
    if (row == 0 || now.active.count == 0) continue;
    softmax.RowsUpTo(now, 32);
    Fence();
    BlockValues(scratch.p, v_pairs, shape.keys, shape.dim, now.active,
                acc_RK + static_cast<ptrdiff_t>(now.row) * shape.dim);
  }
}

namespace {

// 16 rows of 16 32-bit numbers, transposed in registers.
inline void Transpose16(__m512i (&x)[16]) {
  __m512i t[16];
  for (int i = 0; i < 8; ++i) {
    t[2 * i] = _mm512_unpacklo_epi32(x[2 * i], x[2 * i + 1]);
    t[2 * i + 1] = _mm512_unpackhi_epi32(x[2 * i], x[2 * i + 1]);
  }
  for (int i = 0; i < 4; ++i) {
    x[4 * i] = _mm512_unpacklo_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 1] = _mm512_unpackhi_epi64(t[4 * i], t[4 * i + 2]);
    x[4 * i + 2] = _mm512_unpacklo_epi64(t[4 * i + 1], t[4 * i + 3]);
    x[4 * i + 3] = _mm512_unpackhi_epi64(t[4 * i + 1], t[4 * i + 3]);
  }
  // x[4 * i + c] now holds, in its four lanes l, column 4 * l + c of rows 4 * i to 4 * i + 3.
  for (int c = 0; c < 4; ++c) {
    t[c] = _mm512_shuffle_i32x4(x[c], x[4 + c], 0x88);
    t[4 + c] = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0x88);
    t[8 + c] = _mm512_shuffle_i32x4(x[c], x[4 + c], 0xdd);
    t[12 + c] = _mm512_shuffle_i32x4(x[8 + c], x[12 + c], 0xdd);
  }
  for (int c = 0; c < 4; ++c) {
    x[c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0x88);
    x[8 + c] = _mm512_shuffle_i32x4(t[c], t[4 + c], 0xdd);
    x[4 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0x88);
    x[12 + c] = _mm512_shuffle_i32x4(t[8 + c], t[12 + c], 0xdd);
  }
}

// 16 numbers of two rows, alternating.
inline __m512i Interleave(const uint16_t* even, const uint16_t* odd) {
  const __m512i low = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)even));
  const __m512i high = _mm512_cvtepu16_epi32(_mm256_loadu_si256((const __m256i*)odd));
  return _mm512_or_si512(low, _mm512_slli_epi32(high, 16));
}

// Rounded to nearest, ties away from zero: the bf16 number is the upper half of every lane.
inline __m512i RoundUpper(__m512 x) {
  return _mm512_add_epi32(_mm512_castps_si512(x), _mm512_set1_epi32(0x8000));
}

// The upper halves of both, alternating. Cheaper than the conversion instruction with a shuffle.
inline __m512i Alternate(__m512i even, __m512i odd) {
  const __m512i upper = _mm512_set1_epi32(static_cast<int>(0xffff0000u));
  return _mm512_ternarylogic_epi32(upper, odd, _mm512_srli_epi32(even, 16), 0xea);  // a & b | c
}

// p and ds of one tile pair, as the three products of the gradients read them.
struct GradientFactors {
  const BlockMask& mask;
  const AmxShape& shape;
  float scale;
  const float *shift_R, *scaled_delta_R;  // lse in powers of 2, scale * delta
  uint16_t *p_RN_pairs, *ds_RN_pairs, *ds_RN_rows;

  // Where block `keys` of 32 keys and block `row` / 32 of queries lie; the second 16 keys, or rows,
  // are PairsNext, or RowsNext, further.
  ptrdiff_t PairsNext() const { return shape.rows / 32 * kRegister; }
  ptrdiff_t RowsNext() const { return shape.keys / 32 * kRegister; }
  ptrdiff_t Pairs(int keys, int row) const { return 2 * keys * PairsNext() + row / 32 * kRegister; }
  ptrdiff_t Rows(int keys, int row) const { return row / 16 * RowsNext() + keys * kRegister; }

  // Rows `row` + r and `row` + r + 1 of block `i` of the active ones.
  inline void TwoRows(const ActiveBlocks& active, int i, int row, int r, const float* s,
                      const float* dp) const {
    const __m512 factor = _mm512_set1_ps(scale * kLog2E), scale_v = _mm512_set1_ps(scale);
    const int keys = active.block[i];
    __m512i p[2][2], ds[2][2];
    for (int y = 0; y < 2; ++y) {
      const __m512 shift = _mm512_set1_ps(shift_R[row + r + y]);
      const __m512 delta = _mm512_set1_ps(scaled_delta_R[row + r + y]);
      for (int x = 0; x < 2; ++x) {
        const ptrdiff_t at = i * 1024 + (r + y) * 32 + x * 16;
        __m512 prob = Exp2(_mm512_fmsub_ps(_mm512_load_ps(s + at), factor, shift));
        __m512 grad = _mm512_mul_ps(prob, _mm512_fmsub_ps(_mm512_load_ps(dp + at), scale_v, delta));
        if (active.masked[i]) {
          const __mmask16 seen = mask.Seen(row + r + y, keys * 32 + x * 16);
          prob = _mm512_maskz_mov_ps(seen, prob);
          grad = _mm512_maskz_mov_ps(seen, grad);
        }
        p[y][x] = RoundUpper(prob);
        ds[y][x] = RoundUpper(grad);
      }
      _mm512_store_si512(ds_RN_rows + Rows(keys, row + r) + (r % 16 + y) * 32,
                         Alternate(ds[y][0], ds[y][1]));
    }
    for (int x = 0; x < 2; ++x) {
      const ptrdiff_t at = Pairs(keys, row) + x * PairsNext() + r / 2 * 32;
      _mm512_store_si512(p_RN_pairs + at, Alternate(p[0][x], p[1][x]));
      _mm512_store_si512(ds_RN_pairs + at, Alternate(ds[0][x], ds[1][x]));
    }
  }
};

struct QueryBlocks {
  int count = 0;
  int row[kMaxBlocks];
};

// sums_KN [blocks of 32 x 32] += x_KR y_RN for the block `keys`, over the queries that see it.
void AddKeyGradient(const GradientFactors& factors, int keys, const QueryBlocks& active,
                    const uint16_t* x_KR_rows, const uint16_t* y_RN_pairs, float* sums_KN) {
  const AmxShape& shape = factors.shape;
  for (int k = 0; k < shape.dim; k += 32) {
    float* sums = sums_KN + (k / 32 * (shape.keys / 32) + keys) * 1024;
    LoadSums(sums, 32);
    for (int i = 0; i < active.count; ++i) {
      const int row = active.row[i];
      Multiply(x_KR_rows + k / 16 * factors.PairsNext() + row / 32 * kRegister, 64,
               factors.PairsNext(), y_RN_pairs + factors.Pairs(keys, row), factors.PairsNext());
    }
    StoreSums(sums, 32);
  }
}

void StoreQueryGradient(const GradientFactors& factors, int row, const ActiveBlocks& active,
                        const uint16_t* k_NK_pairs, float* dq_RK) {
  const AmxShape& shape = factors.shape;
  for (int k = 0; k < shape.dim; k += 32) {
    ZeroSums();
    for (int i = 0; i < active.count; ++i) {
      Multiply(factors.ds_RN_rows + factors.Rows(active.block[i], row), 64, factors.RowsNext(),
               k_NK_pairs + k / 16 * factors.RowsNext() + active.block[i] * kRegister,
               factors.RowsNext());
    }
    StoreSums(dq_RK + static_cast<ptrdiff_t>(row) * shape.dim + k, shape.dim);
  }
}

}  // namespace

void AmxPackTransposedPairs(const uint16_t* x_NC, int rows, int cols, uint16_t* pairs) noexcept {
  for (int n = 0; n < rows; n += 16) {
    for (int c = 0; c < cols; c += 32, pairs += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        x[i] = _mm512_loadu_si512(x_NC + static_cast<ptrdiff_t>(n + i) * cols + c);
      }
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(pairs + i * 32, x[i]);
    }
  }
}

void AmxPackPairs(const uint16_t* x_CN, int rows, int cols, PairOrder order,
                  uint16_t* pairs) noexcept {
  const int step = order == PairOrder::kNeighbours ? 2 : 1;
  const ptrdiff_t partner = order == PairOrder::kNeighbours ? cols : ptrdiff_t{16} * cols;
  for (int n = 0; n < cols; n += 16) {
    for (int c = 0; c < rows; c += 32) {
      for (int pair = 0; pair < 16; ++pair, pairs += 32) {
        const uint16_t* x = x_CN + static_cast<ptrdiff_t>(c + pair * step) * cols + n;
        _mm512_store_si512(pairs, Interleave(x, x + partner));
      }
    }
  }
}

void AmxPackTransposedRows(const uint16_t* x_RC, int rows, int cols, uint16_t* blocks) noexcept {
  for (int c = 0; c < cols; c += 16) {
    for (int r = 0; r < rows; r += 32, blocks += kRegister) {
      __m512i x[16];
      for (int i = 0; i < 16; ++i) {
        const uint16_t* at = x_RC + static_cast<ptrdiff_t>(r + 2 * i) * cols + c;
        x[i] = Interleave(at, at + cols);
      }
      Transpose16(x);
      for (int i = 0; i < 16; ++i) _mm512_store_si512(blocks + i * 32, x[i]);
    }
  }
}

void AmxAddTransposed(const float* blocks_KN, int keys, int dim, float* x_NK) noexcept {
  for (int k = 0; k < dim; k += 32) {
    for (int n = 0; n < keys; n += 32, blocks_KN += 1024) {
      for (int quarter = 0; quarter < 4; ++quarter) {
        const int k16 = quarter / 2 * 16, n16 = quarter % 2 * 16;
        __m512i x[16];
        for (int i = 0; i < 16; ++i) x[i] = _mm512_load_si512(blocks_KN + (k16 + i) * 32 + n16);
        Transpose16(x);
        for (int i = 0; i < 16; ++i) {
          float* to = x_NK + static_cast<ptrdiff_t>(n + n16 + i) * dim + k + k16;
          _mm512_storeu_ps(to, _mm512_add_ps(_mm512_loadu_ps(to), _mm512_castsi512_ps(x[i])));
        }
      }
    }
  }
}

void AmxBackward(const AmxShape& shape, const AmxBackwardInputs& inputs, float scale,
                 const TileMask* mask, const AmxScratch& scratch, float* dk_KN, float* dv_KN,
                 float* dq_RK) noexcept {
  const TileRegisters registers;
  const BlockMask block_mask(mask, shape.keys);
  const ptrdiff_t area = static_cast<ptrdiff_t>(shape.rows) * shape.keys;
  float shift_R[kMaxRows], scaled_delta_R[kMaxRows];
  for (int r = 0; r < shape.rows; ++r) {
    // A query that saw nothing has p = 2^-inf.
    shift_R[r] = inputs.lse_R[r] == kMinusInfinity ? -kMinusInfinity : inputs.lse_R[r] * kLog2E;
    scaled_delta_R[r] = inputs.delta_R[r] * scale;
  }
  const GradientFactors factors{
      block_mask,          shape, scale, shift_R, scaled_delta_R, scratch.p, scratch.p + area,
      scratch.p + 2 * area};
  float *s = scratch.s, *dp = scratch.s + 32 * shape.keys;
  QueryBlocks seen_by[kMaxBlocks];
  // The next queries come into the second-level cache in equal pieces, one with each pair of
  // blocks.
  const char* fetch = static_cast<const char*>(inputs.next_queries);
  const ptrdiff_t pieces = ptrdiff_t{shape.rows / 32} * (shape.keys / 32);
  const ptrdiff_t fetch_bytes = fetch ? ptrdiff_t{8} * shape.rows * shape.dim / pieces : 0;
  for (int row = 0; row < shape.rows; row += 32) {
    const ActiveBlocks active = block_mask.Active(row);
    const ptrdiff_t at = static_cast<ptrdiff_t>(row) * shape.dim;
    const auto nothing = [](int, int) {};
    BlockScores(inputs.q_RK + at, shape.dim, inputs.k_pairs, active, s, nothing);
    BlockScores(inputs.dout_RK + at, shape.dim, inputs.v_pairs, active, dp, nothing);
    for (int i = 0; i < active.count; ++i) {
      for (ptrdiff_t line = 0; line < fetch_bytes; line += 64)
        _mm_prefetch(fetch + line, _MM_HINT_T1);
      fetch += fetch_bytes;
      QueryBlocks& queries = seen_by[active.block[i]];
      queries.row[queries.count++] = row;
      for (int r = 0; r < 32; r += 2) factors.TwoRows(active, i, row, r, s, dp);
    }
    Fence();
    StoreQueryGradient(factors, row, active, inputs.k_NK_pairs, dq_RK);
  }
  for (int keys = 0; keys < shape.keys / 32; ++keys) {
    if (seen_by[keys].count == 0) continue;
    AddKeyGradient(factors, keys, seen_by[keys], inputs.dout_KR_rows, factors.p_RN_pairs, dv_KN);
    AddKeyGradient(factors, keys, seen_by[keys], inputs.q_KR_rows, factors.ds_RN_pairs, dk_KN);
  }
}

}  // namespace lwm::kernels

#if defined(__clang__)
#pragma clang attribute pop
#else
#pragma GCC pop_options
#endif

#else  // no AMX on this kind of machine

namespace lwm::kernels {
bool AmxAvailable() noexcept { return false; }
void AmxPackTransposedPairs(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxPackPairs(const uint16_t*, int, int, PairOrder, uint16_t*) noexcept {}
void AmxPackTransposedRows(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxAddTransposed(const float*, int, int, float*) noexcept {}
void AmxForward(const AmxShape&, const uint16_t*, const uint16_t*, const uint16_t*, const void*,
                float, const TileMask*, const AmxScratch&, float*, float*, float*) noexcept {}
void AmxBackward(const AmxShape&, const AmxBackwardInputs&, float, const TileMask*,
                 const AmxScratch&, float*, float*, float*) noexcept {}
}  // namespace lwm::kernels

#endif
