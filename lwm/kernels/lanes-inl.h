// Loads, stores and exp in f32 lanes, for the Highway sections of this folder. Included once per
// CPU target, hence the toggled guard.

#if defined(LWM_KERNELS_LANES_INL_H_) == defined(HWY_TARGET_TOGGLE)
#ifdef LWM_KERNELS_LANES_INL_H_
#undef LWM_KERNELS_LANES_INL_H_
#else
#define LWM_KERNELS_LANES_INL_H_
#endif

#include <hwy/highway.h>

#include <cstddef>
#include <cstdint>

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

template <class D>
HWY_INLINE hn::Vec<D> LoadLanes(D d, const float* from) {
  return hn::LoadU(d, from);
}

// bf16 (its bits) widened.
template <class D>
HWY_INLINE hn::Vec<D> LoadLanes(D d, const uint16_t* from) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(d32, hn::LoadU(d16, from))));
}

template <class D>
HWY_INLINE void StoreLanes(hn::Vec<D> value, D d, float* to) {
  hn::StoreU(value, d, to);
}

// Rounds to the nearest bf16, ties to even. A NaN is made quiet first: the rounding carry could
// otherwise run through its mantissa into the sign.
template <class D>
HWY_INLINE void StoreLanes(hn::Vec<D> value, D d, uint16_t* to) {
  const hn::Rebind<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto safe =
      hn::IfThenElse(hn::IsNaN(value), hn::BitCast(d, hn::Set(d32, 0x7FC00000u)), value);
  const auto bits = hn::BitCast(d32, safe);
  const auto odd = hn::And(hn::ShiftRight<16>(bits), hn::Set(d32, 1u));
  const auto rounded = hn::Add(bits, hn::Add(odd, hn::Set(d32, 0x7FFFu)));
  hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(rounded)), d16, to);
}

// exp(x) for x <= 0, relative error below 3e-7; 0 below -86.6 (no denormals); NaN stays NaN.
// 2^(x log2 e): adding 1.5 * 2^23 + 127 leaves the rounded exponent, biased, in the low mantissa
// bits; a polynomial gives the rest on [-1/2, 1/2].
template <class D>
HWY_INLINE hn::Vec<D> ExpOfNonPositive(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> d32;
  const auto shifter = hn::Set(d, 12582912.0f + 127.0f);
  const auto t = hn::Mul(x, hn::Set(d, 1.44269504f));
  const auto shifted = hn::Add(t, shifter);
  // f = x log2 e - n in two steps, so that the rounding of t does not matter.
  const auto n = hn::Sub(shifted, shifter);
  auto f = hn::MulSub(x, hn::Set(d, 1.44269502f), n);
  f = hn::MulAdd(x, hn::Set(d, 1.92596303e-8f), f);
  auto p = hn::Set(d, 1.54035304e-4f);
  p = hn::MulAdd(p, f, hn::Set(d, 1.33335581e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 9.61812911e-3f));
  p = hn::MulAdd(p, f, hn::Set(d, 5.55041087e-2f));
  p = hn::MulAdd(p, f, hn::Set(d, 2.40226507e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 6.93147182e-1f));
  p = hn::MulAdd(p, f, hn::Set(d, 1.0f));
  const auto scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted)));
  return hn::IfThenZeroElse(hn::Lt(t, hn::Set(d, -125.0f)), hn::Mul(p, scale));
}

// body(d, c) over [0, cols): full vectors first, then single lanes, so that a tail is computed by
// the same code.
template <class Body>
HWY_INLINE void ForEachLanes(size_t cols, const Body& body) {
  const hn::ScalableTag<float> d;
  const hn::CappedTag<float, 1> one;
  size_t c = 0;
  for (; c + hn::Lanes(d) <= cols; c += hn::Lanes(d)) body(d, c);
  for (; c < cols; ++c) body(one, c);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#endif
