#include "lwm/kernels/elementwise/rms_norm.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/rms_norm.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

template <class T>
HWY_INLINE float SumOfSquares(const T* x_C, size_t cols) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto even = hn::Zero(d);  // two accumulators hide the latency of the sum
  auto odd = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= cols; c += 2 * lanes) {
    const auto a = LoadLanes(d, x_C + c);
    const auto b = LoadLanes(d, x_C + c + lanes);
    even = hn::MulAdd(a, a, even);
    odd = hn::MulAdd(b, b, odd);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<float, 1> one;
  for (; c < cols; ++c) {
    const float x = hn::GetLane(LoadLanes(one, x_C + c));
    sum += x * x;
  }
  return sum;
}

// Sum of dy * w * x over the row: the projection of the gradient on x.
template <class T>
HWY_INLINE float WeightedDot(const T* dy_C, const T* x_C, const float* w_C, size_t cols) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  size_t c = 0;
  for (; c + 2 * lanes <= cols; c += 2 * lanes) {
    const auto a = hn::Mul(LoadLanes(d, dy_C + c), hn::LoadU(d, w_C + c));
    const auto b = hn::Mul(LoadLanes(d, dy_C + c + lanes), hn::LoadU(d, w_C + c + lanes));
    even = hn::MulAdd(a, LoadLanes(d, x_C + c), even);
    odd = hn::MulAdd(b, LoadLanes(d, x_C + c + lanes), odd);
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<float, 1> one;
  for (; c < cols; ++c)
    sum += hn::GetLane(LoadLanes(one, dy_C + c)) * w_C[c] * hn::GetLane(LoadLanes(one, x_C + c));
  return sum;
}

template <class T>
HWY_INLINE float InverseRms(const T* x_C, size_t cols, float eps) {
  return 1.0f / std::sqrt(SumOfSquares(x_C, cols) / static_cast<float>(cols) + eps);
}

// A row is read twice, the second time from the cache.
template <class T>
HWY_INLINE void Forward(const T* x_RC, const float* w_C, const RmsNormShape& shape, T* y_RC) {
  const size_t cols = shape.cols;
  for (size_t r = 0; r < shape.rows; ++r) {
    const T* x_C = x_RC + r * cols;
    T* y_C = y_RC + r * cols;
    const float scale = InverseRms(x_C, cols, shape.eps);
    ForEachLanes(cols, [=](auto d, size_t c) HWY_ATTR {
      const auto scaled = hn::Mul(LoadLanes(d, x_C + c), hn::Set(d, scale));
      StoreLanes(hn::Mul(scaled, hn::LoadU(d, w_C + c)), d, y_C + c);
    });
  }
}

// The norm is computed again from x, so that the forward pass keeps nothing but x. The derivative
// of 1 / rms takes from dx its projection on x: pull. Rows are added to dw in order.
template <class T>
HWY_INLINE void Backward(const T* dy_RC, const T* x_RC, const float* w_C, const RmsNormShape& shape,
                         T* dx_RC, float* dw_C) {
  const size_t cols = shape.cols;
  for (size_t r = 0; r < shape.rows; ++r) {
    const T *dy_C = dy_RC + r * cols, *x_C = x_RC + r * cols;
    T* dx_C = dx_RC + r * cols;
    const float scale = InverseRms(x_C, cols, shape.eps);
    const float mean = WeightedDot(dy_C, x_C, w_C, cols) / static_cast<float>(cols);
    const float pull = scale * scale * mean;
    ForEachLanes(cols, [=](auto d, size_t c) HWY_ATTR {
      const auto scales = hn::Set(d, scale);
      const auto dy = LoadLanes(d, dy_C + c);
      const auto x = LoadLanes(d, x_C + c);
      const auto direct = hn::Mul(dy, hn::LoadU(d, w_C + c));
      StoreLanes(hn::Mul(scales, hn::NegMulAdd(x, hn::Set(d, pull), direct)), d, dx_C + c);
      hn::StoreU(hn::MulAdd(dy, hn::Mul(x, scales), hn::LoadU(d, dw_C + c)), d, dw_C + c);
    });
  }
}

void RmsNormF32(const float* x_RC, const float* w_C, const RmsNormShape& shape, float* y_RC) {
  Forward(x_RC, w_C, shape, y_RC);
}
void RmsNormBf16(const uint16_t* x_RC, const float* w_C, const RmsNormShape& shape,
                 uint16_t* y_RC) {
  Forward(x_RC, w_C, shape, y_RC);
}
void RmsNormBackwardF32(const float* dy_RC, const float* x_RC, const float* w_C,
                        const RmsNormShape& shape, float* dx_RC, float* dw_C) {
  Backward(dy_RC, x_RC, w_C, shape, dx_RC, dw_C);
}
void RmsNormBackwardBf16(const uint16_t* dy_RC, const uint16_t* x_RC, const float* w_C,
                         const RmsNormShape& shape, uint16_t* dx_RC, float* dw_C) {
  Backward(dy_RC, x_RC, w_C, shape, dx_RC, dw_C);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(RmsNormF32);
HWY_EXPORT(RmsNormBf16);
HWY_EXPORT(RmsNormBackwardF32);
HWY_EXPORT(RmsNormBackwardBf16);

void RmsNorm(const float* x_RC, const float* w_C, const RmsNormShape& shape, float* y_RC) noexcept {
  HWY_DYNAMIC_DISPATCH(RmsNormF32)(x_RC, w_C, shape, y_RC);
}
void RmsNorm(const uint16_t* x_RC, const float* w_C, const RmsNormShape& shape,
             uint16_t* y_RC) noexcept {
  HWY_DYNAMIC_DISPATCH(RmsNormBf16)(x_RC, w_C, shape, y_RC);
}
void RmsNormBackward(const float* dy_RC, const float* x_RC, const float* w_C,
                     const RmsNormShape& shape, float* dx_RC, float* dw_C) noexcept {
  HWY_DYNAMIC_DISPATCH(RmsNormBackwardF32)(dy_RC, x_RC, w_C, shape, dx_RC, dw_C);
}
void RmsNormBackward(const uint16_t* dy_RC, const uint16_t* x_RC, const float* w_C,
                     const RmsNormShape& shape, uint16_t* dx_RC, float* dw_C) noexcept {
  HWY_DYNAMIC_DISPATCH(RmsNormBackwardBf16)(dy_RC, x_RC, w_C, shape, dx_RC, dw_C);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
