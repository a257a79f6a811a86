// Per-target header: products of the AVX512-BF16 attention kernels. Only between LWM_BF16_BEGIN and
// LWM_BF16_END.
#pragma once

#include <cstring>

#include "lwm/kernels/attention/bf16-inl.h"

LWM_BF16_BEGIN
namespace lwm::kernels {

// Left factor: element (row, pair) of two numbers lies at `at + row * row_step + pair * pair_step`.
struct LeftPairs {
  const uint16_t* at;
  ptrdiff_t row_step, pair_step;
};
// Right factor: pairs of 16 columns lie together, the next 16 columns `next` numbers further.
struct RightPairs {
  const uint16_t* at;
  ptrdiff_t next;
};
struct ProductSums {
  float* at;
  ptrdiff_t row_step;
};

// sums [kRows, 16 * kVectors] (+)= left right. The sums stay in registers over all pairs; every
// pair of the left factor is broadcast once. 6 x 4 sums, 4 columns and the broadcast pair are 29 of
// the 32 vector registers. The sums are independent, which hides the latency of VDPBF16PS. Not
// inlined, so that each size is compiled once.
template <int kRows, int kVectors>
__attribute__((noinline)) void MultiplyRows(const LeftPairs& left, const RightPairs& right,
                                            int pairs, const ProductSums& sums, bool add) {
  __m512 sum[kRows][kVectors];
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      sum[r][v] = add ? _mm512_loadu_ps(sums.at + r * sums.row_step + 16 * v) : _mm512_setzero_ps();
    }
  }
  const uint16_t *a = left.at, *b = right.at;
  for (int p = 0; p < pairs; ++p, a += left.pair_step, b += 32) {
    __m512i column[kVectors];
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) column[v] = _mm512_load_si512(b + v * right.next);
#pragma GCC unroll 8
    for (int r = 0; r < kRows; ++r) {
      int32_t pair;
      std::memcpy(&pair, a + r * left.row_step, sizeof pair);
      const __m512i row = InRegister(_mm512_set1_epi32(pair));
#pragma GCC unroll 8
      for (int v = 0; v < kVectors; ++v) {
        sum[r][v] = _mm512_dpbf16_ps(sum[r][v], (__m512bh)row, (__m512bh)column[v]);
      }
    }
  }
#pragma GCC unroll 8
  for (int r = 0; r < kRows; ++r) {
#pragma GCC unroll 8
    for (int v = 0; v < kVectors; ++v) {
      _mm512_storeu_ps(sums.at + r * sums.row_step + 16 * v, sum[r][v]);
    }
  }
}

// sums [32, 16 * vectors] (+)= left right; vectors is even. 32 rows are 6 + 6 + 5 + 5 + 5 + 5, or
// four times 8 for a last pair of vectors. Columns are in the outer loop: their part of the right
// factor stays in the first-level cache for all rows.
inline void MultiplyBlock(const LeftPairs& left, const RightPairs& right, int pairs, int vectors,
                          const ProductSums& sums, bool add) {
  const auto rows = [&](auto multiply, int row, int vector) {
    multiply(LeftPairs{left.at + row * left.row_step, left.row_step, left.pair_step},
             RightPairs{right.at + vector * right.next, right.next}, pairs,
             ProductSums{sums.at + row * sums.row_step + 16 * vector, sums.row_step}, add);
  };
  int v = 0;
  for (; v + 4 <= vectors; v += 4) {
    rows(MultiplyRows<6, 4>, 0, v);
    rows(MultiplyRows<6, 4>, 6, v);
    for (int row = 12; row < 32; row += 5) rows(MultiplyRows<5, 4>, row, v);
  }
  if (v < vectors) {
    for (int row = 0; row < 32; row += 8) rows(MultiplyRows<8, 2>, row, v);
  }
}

// Calls fn(first, count) for each run of neighbouring blocks, of at most `most`: a run is one
// product with longer loops.
template <class Fn>
inline void ForEachRun(const ActiveBlocks& active, int most, const Fn& fn) {
  for (int i = 0; i < active.count;) {
    int count = 1;
    while (i + count < active.count && count < most &&
           active.block[i + count] == active.block[i] + count) {
      ++count;
    }
    fn(i, count);
    i += count;
  }
}

}  // namespace lwm::kernels
LWM_BF16_END
