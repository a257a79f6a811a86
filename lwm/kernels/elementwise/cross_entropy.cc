#include "lwm/kernels/elementwise/cross_entropy.h"

#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/cross_entropy.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

template <class T>
HWY_INLINE float At(const T* row_V, size_t v) {
  const hn::CappedTag<float, 1> one;
  return hn::GetLane(LoadLanes(one, row_V + v));
}

// Max may drop a NaN: it comes back in the sum.
template <class T>
HWY_INLINE float Largest(const T* row_V, size_t vocab) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  auto even = hn::Set(d, -std::numeric_limits<float>::infinity());
  auto odd = even;
  size_t v = 0;
  for (; v + 2 * lanes <= vocab; v += 2 * lanes) {
    even = hn::Max(LoadLanes(d, row_V + v), even);
    odd = hn::Max(LoadLanes(d, row_V + v + lanes), odd);
  }
  float largest = hn::GetLane(hn::MaxOfLanes(d, hn::Max(even, odd)));
  for (; v < vocab; ++v) largest = std::fmax(largest, At(row_V, v));
  return largest;
}

template <class T>
HWY_INLINE float SumOfExp(const T* row_V, size_t vocab, float largest) {
  const hn::ScalableTag<float> d;
  const size_t lanes = hn::Lanes(d);
  const auto shift = hn::Set(d, largest);
  auto even = hn::Zero(d);
  auto odd = hn::Zero(d);
  size_t v = 0;
  for (; v + 2 * lanes <= vocab; v += 2 * lanes) {
    const auto a = hn::Sub(LoadLanes(d, row_V + v), shift);
    const auto b = hn::Sub(LoadLanes(d, row_V + v + lanes), shift);
    even = hn::Add(even, ExpOfNonPositive(d, a));
    odd = hn::Add(odd, ExpOfNonPositive(d, b));
  }
  float sum = hn::GetLane(hn::SumOfLanes(d, hn::Add(even, odd)));
  const hn::CappedTag<float, 1> one;
  for (; v < vocab; ++v)
    sum += hn::GetLane(ExpOfNonPositive(one, hn::Set(one, At(row_V, v) - largest)));
  return sum;
}

// row = weight * softmax(row) = factor * exp(row - largest), with factor = weight / sum.
template <class T>
HWY_INLINE void WeightedSoftmax(T* row_V, size_t vocab, float largest, float factor) {
  ForEachLanes(vocab, [=](auto d, size_t v) HWY_ATTR {
    const auto shifted = hn::Sub(LoadLanes(d, row_V + v), hn::Set(d, largest));
    StoreLanes(hn::Mul(ExpOfNonPositive(d, shifted), hn::Set(d, factor)), d, row_V + v);
  });
}

// nll = log(sum) + (largest - chosen): the large terms cancel before the small logarithm is added.
template <class T>
HWY_INLINE void Row(T* row_V, size_t vocab, size_t target, const float* weight, float* nll) {
  const float chosen = At(row_V, target);  // before the row is overwritten
  const float largest = Largest(row_V, vocab);
  const float sum = SumOfExp(row_V, vocab, largest);
  *nll = std::log(sum) + (largest - chosen);
  if (weight == nullptr) return;
  const hn::CappedTag<float, 1> one;
  // Set, not scaled: 0 x NaN would reach the gradients of a token that does not count.
  if (*weight == 0) {
    ForEachLanes(vocab, [=](auto d, size_t v) HWY_ATTR { StoreLanes(hn::Zero(d), d, row_V + v); });
    return;
  }
  WeightedSoftmax(row_V, vocab, largest, *weight / sum);
  // p - 1 is a difference of near numbers when p is near 1; -(1 - p) from nll keeps its digits.
  StoreLanes(hn::Set(one, *weight * std::expm1(-*nll)), one, row_V + target);
}

template <class T>
HWY_INLINE void Rows(T* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                     const float* weight_R, float* nll_R) {
  for (size_t r = 0; r < rows; ++r)
    Row(logits_RV + r * vocab, vocab, static_cast<size_t>(target_R[r]),
        weight_R == nullptr ? nullptr : weight_R + r, nll_R + r);
}

void CrossEntropyF32(float* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                     const float* weight_R, float* nll_R) {
  Rows(logits_RV, rows, vocab, target_R, weight_R, nll_R);
}
void CrossEntropyBf16(uint16_t* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                      const float* weight_R, float* nll_R) {
  Rows(logits_RV, rows, vocab, target_R, weight_R, nll_R);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(CrossEntropyF32);
HWY_EXPORT(CrossEntropyBf16);

void CrossEntropy(float* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                  const float* weight_R, float* nll_R) noexcept {
  HWY_DYNAMIC_DISPATCH(CrossEntropyF32)
  (logits_RV, rows, vocab, target_R, weight_R, nll_R);
}
void CrossEntropy(uint16_t* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                  const float* weight_R, float* nll_R) noexcept {
  HWY_DYNAMIC_DISPATCH(CrossEntropyBf16)
  (logits_RV, rows, vocab, target_R, weight_R, nll_R);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
