#include "lwm/kernels/gemv.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <bit>

// Without it GCC keeps small constant loops rolled at -O2, and with them the accumulators in
// memory.
#define LWM_UNROLL _Pragma("GCC unroll 4")

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/gemv.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

// Rows at once: each is a stream for the hardware prefetcher, and each load of x serves all of
// them.
constexpr size_t kRows = 4;
// Prefetch distance. 30 -> 35 GB/s of 38 on a Sapphire Rapids core pair.
constexpr size_t kAheadBytes = 512;
constexpr size_t kVectors = 4;  // vectors per pass: rows x vectors accumulators fit the registers

// Both element types as f32 lanes; one load gives kParts vectors of lanes.
struct F32 {
  using Lane = float;
  static constexpr size_t kParts = 1;
  static float ToFloat(float x) { return x; }
  template <class D>
  static void Load(D d, const float* from, hn::Vec<D> (&to)[kParts]) {
    to[0] = hn::LoadU(d, from);
  }
};

// Even elements are the low halves of 32-bit lanes, odd ones the high halves: a shift and a mask
// widen both without shuffles. The order of a sum is free, so w and x are split alike.
struct Bf16 {
  using Lane = uint16_t;
  static constexpr size_t kParts = 2;
  static float ToFloat(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
  template <class D>
  static void Load(D d, const uint16_t* from, hn::Vec<D> (&to)[kParts]) {
#if HWY_TARGET == HWY_SCALAR
    to[0] = hn::Set(d, ToFloat(from[0]));
    to[1] = hn::Set(d, ToFloat(from[1]));
#else
    const hn::Repartition<uint16_t, D> d16;
    const hn::RebindToUnsigned<D> d32;
    const auto pairs = hn::BitCast(d32, hn::LoadU(d16, from));
    to[0] = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
    to[1] = hn::BitCast(d, hn::And(pairs, hn::Set(d32, 0xFFFF0000u)));
#endif
  }
};

// R rows times M vectors, with all R * M sums in registers. Each number of w is loaded once for all
// M vectors. The sum of one row and one vector has the same order for every R and M, so its bits do
// not depend on the rest of the batch. GCC keeps small constant loops rolled at -O2, and with them
// the sums in memory; hence the pragmas.
template <class Type, size_t R, size_t M>
void Block(const typename Type::Lane* w_RC, size_t cols, const typename Type::Lane* x_MC,
           float* y_MR, size_t y_stride) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t step = hn::Lanes(d) * Type::kParts;
  V sum[R * M];
  HWY_UNROLL(16)
  for (size_t i = 0; i < R * M; ++i) sum[i] = hn::Zero(d);
  size_t c = 0;
  for (; c + step <= cols; c += step) {
    V x[M][Type::kParts], w[Type::kParts];
    HWY_UNROLL(4)
    for (size_t m = 0; m < M; ++m) Type::Load(d, x_MC + m * cols + c, x[m]);
    HWY_UNROLL(16)
    for (size_t i = 0; i < R * M; ++i) {
      const size_t r = i / M, m = i % M;
      const auto* from = w_RC + r * cols + c;
      if (m == 0) hwy::Prefetch(from + kAheadBytes / sizeof(*from));
      if (m == 0) Type::Load(d, from, w);
      for (size_t p = 0; p < Type::kParts; ++p) sum[i] = hn::MulAdd(w[p], x[m][p], sum[i]);
    }
  }
  HWY_UNROLL(16)
  for (size_t i = 0; i < R * M; ++i) {
    const size_t r = i / M, m = i % M;
    float total = hn::GetLane(hn::SumOfLanes(d, sum[i]));
    for (size_t t = c; t < cols; ++t)
      total += Type::ToFloat(w_RC[r * cols + t]) * Type::ToFloat(x_MC[m * cols + t]);
    y_MR[m * y_stride + r] = total;
  }
}

// Four vectors at a time over the same rows: beyond four, w comes from the cache.
template <class Type, size_t R>
void RowBlock(const typename Type::Lane* w_RC, size_t cols, const typename Type::Lane* x_MC,
              size_t vectors, float* y_MR, size_t y_stride) {
  for (size_t m = 0; m < vectors; m += kVectors) {
    const auto* x = x_MC + m * cols;
    float* y = y_MR + m * y_stride;
    const size_t now = std::min(kVectors, vectors - m);
    if (now == 1) Block<Type, R, 1>(w_RC, cols, x, y, y_stride);
    if (now == 2) Block<Type, R, 2>(w_RC, cols, x, y, y_stride);
    if (now == 3) Block<Type, R, 3>(w_RC, cols, x, y, y_stride);
    if (now == 4) Block<Type, R, 4>(w_RC, cols, x, y, y_stride);
  }
}

template <class Type>
void GemvOf(const typename Type::Lane* w_RC, size_t rows, size_t cols,
            const typename Type::Lane* x_MC, size_t vectors, float* y_MR, size_t y_stride) {
  size_t r = 0;
  for (; r + kRows <= rows; r += kRows)
    RowBlock<Type, kRows>(w_RC + r * cols, cols, x_MC, vectors, y_MR + r, y_stride);
  for (; r < rows; ++r) RowBlock<Type, 1>(w_RC + r * cols, cols, x_MC, vectors, y_MR + r, y_stride);
}

void GemvRowsF32(const float* w_RC, size_t rows, size_t cols, const float* x_MC, size_t vectors,
                 float* y_MR, size_t y_stride) {
  GemvOf<F32>(w_RC, rows, cols, x_MC, vectors, y_MR, y_stride);
}

void GemvRowsBf16(const uint16_t* w_RC, size_t rows, size_t cols, const uint16_t* x_MC,
                  size_t vectors, float* y_MR, size_t y_stride) {
  GemvOf<Bf16>(w_RC, rows, cols, x_MC, vectors, y_MR, y_stride);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(GemvRowsF32);
HWY_EXPORT(GemvRowsBf16);

void Gemv(const float* w_RC, size_t rows, size_t cols, const float* x_MC, size_t vectors,
          float* y_MR, size_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(GemvRowsF32)(w_RC, rows, cols, x_MC, vectors, y_MR, y_stride);
}

void Gemv(const uint16_t* w_RC, size_t rows, size_t cols, const uint16_t* x_MC, size_t vectors,
          float* y_MR, size_t y_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(GemvRowsBf16)(w_RC, rows, cols, x_MC, vectors, y_MR, y_stride);
}

}  // namespace lwm::kernels
#endif  // HWY_ONCE
