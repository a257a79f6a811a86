#include "lwm/kernels/elementwise/logits_tile.h"

#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/logits_tile.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// Max may drop a NaN: it comes back in the sum.
HWY_INLINE float LargestOfRow(const float* row_N, size_t cols) {
  const hn::ScalableTag<float> d;
  auto lanes = hn::Set(d, -std::numeric_limits<float>::infinity());
  size_t c = 0;
  for (; c + hn::Lanes(d) <= cols; c += hn::Lanes(d))
    lanes = hn::Max(hn::LoadU(d, row_N + c), lanes);
  float largest = hn::GetLane(hn::MaxOfLanes(d, lanes));
  for (; c < cols; ++c) largest = std::fmax(largest, row_N[c]);
  return largest;
}

// Sum of exp(row - largest), of the exponentials before they are rounded; keep(d, e, c) stores
// them.
template <class Keep>
HWY_INLINE float SumOfExp(const float* row_N, size_t cols, float largest, const Keep& keep) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  auto lanes = hn::Zero(d);
  size_t c = 0;
  for (; c + hn::Lanes(d) <= cols; c += hn::Lanes(d)) {
    const auto e = ExpOfNonPositive(d, hn::Sub(hn::LoadU(d, row_N + c), hn::Set(d, largest)));
    lanes = hn::Add(lanes, e);
    keep(d, e, c);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, lanes));
  for (; c < cols; ++c) {
    const auto e = ExpOfNonPositive(one, hn::Set(one, row_N[c] - largest));
    sum += hn::GetLane(e);
    keep(one, e, c);
  }
  return sum;
}

// Two passes over a row of at most a few hundred logits: it is in L1 for the second.
void SoftmaxOfTileRows(const float* logits_MN, size_t rows, size_t cols, float* largest_M,
                       float* sum_M, uint16_t* exp_MN, size_t exp_stride) {
  for (size_t m = 0; m < rows; ++m) {
    const float* row_N = logits_MN + m * cols;
    const float largest = LargestOfRow(row_N, cols);
    largest_M[m] = largest;
    if (exp_MN == nullptr) {
      sum_M[m] = SumOfExp(row_N, cols, largest, [](auto, auto, size_t) HWY_ATTR {});
    } else {
      uint16_t* exp_N = exp_MN + m * exp_stride;
      sum_M[m] = SumOfExp(row_N, cols, largest,
                          [=](auto d, auto e, size_t c) HWY_ATTR { StoreLanes(e, d, exp_N + c); });
    }
  }
}

// In f32, so that the factor itself is not rounded to bf16.
void ScaleRow(uint16_t* x_N, size_t n, float factor) {
  ForEachLanes(n, [=](auto d, size_t i) HWY_ATTR {
    StoreLanes(hn::Mul(LoadLanes(d, x_N + i), hn::Set(d, factor)), d, x_N + i);
  });
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(SoftmaxOfTileRows);
HWY_EXPORT(ScaleRow);

void SoftmaxOfTile(const float* logits_MN, size_t rows, size_t cols, float* largest_M, float* sum_M,
                   uint16_t* exp_MN, size_t exp_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(SoftmaxOfTileRows)
  (logits_MN, rows, cols, largest_M, sum_M, exp_MN, exp_stride);
}
void ScaleBf16(uint16_t* x_N, size_t n, float factor) noexcept {
  HWY_DYNAMIC_DISPATCH(ScaleRow)(x_N, n, factor);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
