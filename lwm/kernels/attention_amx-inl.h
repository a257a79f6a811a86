// Per-target header: what the AMX kernels of attention share. Only for .cc files that are compiled
// for x86-64 Linux, between LWM_AMX_BEGIN and LWM_AMX_END.
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

#include "lwm/kernels/attention_amx.h"

// The functions between these are compiled for the instructions that AmxAvailable() asks for.
#define LWM_PRAGMA_OF(...) _Pragma(#__VA_ARGS__)
#define LWM_PRAGMA(...) LWM_PRAGMA_OF(__VA_ARGS__)
#define LWM_AMX_TARGET "avx512f,avx512bw,avx512dq,avx512vl,avx512bf16,amx-tile,amx-bf16"
#if defined(__clang__)
#define LWM_AMX_BEGIN \
  LWM_PRAGMA(clang attribute push(__attribute__((target(LWM_AMX_TARGET))), apply_to = function))
#define LWM_AMX_END LWM_PRAGMA(clang attribute pop)
#else
#define LWM_AMX_BEGIN LWM_PRAGMA(GCC push_options) LWM_PRAGMA(GCC target(LWM_AMX_TARGET))
#define LWM_AMX_END LWM_PRAGMA(GCC pop_options)
#endif

LWM_AMX_BEGIN
namespace lwm::kernels {

constexpr float kLog2E = 1.44269504f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
constexpr int kMaxBlocks = kAmxMostKeys / 32;  // of 32 keys or queries in a tile
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

}  // namespace lwm::kernels
LWM_AMX_END
