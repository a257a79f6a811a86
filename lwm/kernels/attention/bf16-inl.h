// Per-target header shared by the attention kernels that need AVX512-BF16, with and without AMX:
// exp2, masks, rounding. Only for .cc files that are compiled for x86-64 Linux, between
// LWM_BF16_BEGIN and LWM_BF16_END.
#pragma once

#if defined(__GNUC__) && !defined(__clang__)
// GCC's own AVX-512 headers start from deliberately undefined registers (GCC bug 105593).
#pragma GCC diagnostic ignored "-Wuninitialized"
#pragma GCC diagnostic ignored "-Wmaybe-uninitialized"
#endif

#include <immintrin.h>

#include <algorithm>
#include <cmath>
#include <cstddef>
#include <cstdint>
#include <limits>

#include "lwm/kernels/attention/bf16.h"

// Functions between these are compiled for the instructions that Avx512Bf16Available() checks. By
// pragma, not by compiler flag: the rest of the file, and inline functions of headers that other
// files share, must run on any processor.
#define LWM_PRAGMA_OF(...) _Pragma(#__VA_ARGS__)
#define LWM_PRAGMA(...) LWM_PRAGMA_OF(__VA_ARGS__)
#define LWM_BF16_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16"
#if defined(__clang__)
#define LWM_BF16_BEGIN \
  LWM_PRAGMA(clang attribute push(__attribute__((target(LWM_BF16_TARGET))), apply_to = function))
#define LWM_BF16_END LWM_PRAGMA(clang attribute pop)
#else
#define LWM_BF16_BEGIN LWM_PRAGMA(GCC push_options) LWM_PRAGMA(GCC target(LWM_BF16_TARGET))
#define LWM_BF16_END LWM_PRAGMA(GCC pop_options)
#endif

LWM_BF16_BEGIN
namespace lwm::kernels {

#define LWM_INLINE inline __attribute__((always_inline))

constexpr float kLog2E = 1.44269504f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int kMaxBlocks = kBf16MostKeys / 32;  // of 32 keys or queries in a tile
constexpr int kMaxRows = 32 * kMaxBlocks;
constexpr ptrdiff_t kRegister = 512;  // bf16 numbers of 16 rows x 64 bytes

// Scores may exceed the running maximum by this much, in powers of e, before the sums so far are
// rescaled to a new one. p is then at most e^5 = 148, with the same relative precision, and most
// blocks need no rescaling.
constexpr float kMaxSlack = 5.0f;

// 2^x, relative error 7.5e-5 (minimax of 2^f on [0, 1)); 0 for -inf, NaN for NaN.
inline __m512 Exp2(__m512 x) {
  const __m512 f = _mm512_reduce_ps(x, 1);  // x - floor(x)
  __m512 y = _mm512_fmadd_ps(_mm512_set1_ps(0.07802452118f), f, _mm512_set1_ps(0.2260671575f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.6958335398f));
  y = _mm512_fmadd_ps(y, f, _mm512_set1_ps(0.9999252186f));
  return _mm512_scalef_ps(y, x);
}

inline __m512i ToBf16(__m512 low, __m512 high) { return (__m512i)_mm512_cvtne2ps_pbh(high, low); }

// Smallest and largest index and begin of 32 tokens; `every` is false if one of them is missing.
struct Extremes {
  bool any = false, every = true;
  int32_t min_index = std::numeric_limits<int32_t>::max(), max_index = -1;
  int32_t min_begin = std::numeric_limits<int32_t>::max(), max_begin = -1;
};

inline Extremes ExtremesOf(const int32_t* index, const int32_t* begin) {
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

// The blocks of 32 keys that a block of 32 queries sees at all, and whether only in part. In rows
// packed from short segments most blocks of a tile are hidden and are skipped.
struct ActiveBlocks {
  int count = 0;
  int block[kMaxBlocks];
  bool masked[kMaxBlocks];
};

// Compares blocks of queries and keys by their smallest and largest numbers, as the tiles are
// compared in ops/attention/tiling.
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

  // Which of the 16 keys from `key` on the query sees.
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

// Keeps a constant in a register: the compiler would otherwise load it again at every use.
inline __m512i InRegister(__m512i x) {
  asm("" : "+v"(x));
  return x;
}

// Rounds to bf16, to nearest with ties away from zero: keys i and 16 + i of 32 become pair i, as in
// v_pairs. Any pairing of keys gives the same sum over them; this one needs no shuffle.
class PairsOfHalves {
 public:
  PairsOfHalves()
      : half_ulp_(InRegister(_mm512_set1_epi32(0x8000))),
        upper_(InRegister(_mm512_set1_epi32(static_cast<int>(0xffff0000)))) {}

  inline __m512i operator()(__m512 low, __m512 high) const {
    const __m512i a = _mm512_add_epi32((__m512i)low, half_ulp_);
    const __m512i b = _mm512_add_epi32((__m512i)high, half_ulp_);
    constexpr int kAOrBAndC = 0xf8;
    return _mm512_ternarylogic_epi32(_mm512_srli_epi32(a, 16), b, upper_, kAOrBAndC);
  }

 private:
  __m512i half_ulp_, upper_;
};

inline __m512 SumOfHalves(__m512 a, __m512 b) {
  return _mm512_add_ps(_mm512_shuffle_f32x4(a, b, 0x88), _mm512_shuffle_f32x4(a, b, 0xdd));
}

// The sums of 16 rows of 16 numbers: transposed and added in one, 15 additions and 30 shuffles
// where a reduction of each row would take four additions and as many shuffles a row.
inline __m512 RowSums(const float* x) {
  __m512 of4[8], of8[4];
  for (int i = 0; i < 8; ++i, x += 32) {
    const __m512 a = _mm512_load_ps(x), b = _mm512_load_ps(x + 16);
    of4[i] = _mm512_add_ps(_mm512_unpacklo_ps(a, b), _mm512_unpackhi_ps(a, b));
  }
  for (int i = 0; i < 4; ++i) {
    const __m512d a = (__m512d)of4[2 * i], b = (__m512d)of4[2 * i + 1];
    of8[i] = _mm512_add_ps((__m512)_mm512_unpacklo_pd(a, b), (__m512)_mm512_unpackhi_pd(a, b));
  }
  return SumOfHalves(SumOfHalves(of8[0], of8[1]), SumOfHalves(of8[2], of8[3]));
}

}  // namespace lwm::kernels
LWM_BF16_END
