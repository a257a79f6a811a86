// Loads, stores, exp and sigmoid in f32 lanes, for the Highway sections of this folder. Included
// once per CPU target, hence the toggled guard.

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

// exp(x) for x <= 0, relative error below 2e-7; 0 below -86.6 (no denormals); NaN stays NaN.
// x = n ln 2 + r: adding 1.5 * 2^23 + 127 leaves the rounded n, biased, in the low mantissa bits,
// the polynomial (Chebyshev fit, error 8e-9 on |r| <= ln(2) / 2) gives exp(r).
template <class D>
HWY_INLINE hn::Vec<D> ExpOfNonPositive(D d, hn::Vec<D> x) {
  const hn::RebindToUnsigned<D> d32;
  const auto shifter = hn::Set(d, 12582912.0f + 127.0f);
  const auto shifted = hn::MulAdd(x, hn::Set(d, 1.44269504f), shifter);
  const auto n = hn::Sub(shifted, shifter);
  // ln 2 in two parts; the product with the first, of 10 bits, is exact even without fused ops.
  auto r = hn::NegMulAdd(n, hn::Set(d, 0.693359375f), x);
  r = hn::MulAdd(n, hn::Set(d, 2.12194440e-4f), r);
  auto p = hn::Set(d, 1.39262508e-3f);
  p = hn::MulAdd(p, r, hn::Set(d, 8.36323288e-3f));
  p = hn::MulAdd(p, r, hn::Set(d, 4.16665542e-2f));
  p = hn::MulAdd(p, r, hn::Set(d, 1.66665767e-1f));
  p = hn::MulAdd(p, r, hn::Set(d, 0.5f));
  p = hn::Add(hn::MulAdd(p, hn::Mul(r, r), r), hn::Set(d, 1.0f));
  const auto scale = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(d32, shifted)));
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -86.6f)), hn::Mul(p, scale));
}

template <class V>
struct Gate {
  V sigmoid, rest;  // 1 / (1 + exp(-g)) and 1 minus that, both to full relative precision
};

// From exp(-|g|), which cannot overflow.
template <class D, class V = hn::Vec<D>>
HWY_INLINE Gate<V> MakeGate(D d, V g) {
  const V e = ExpOfNonPositive(d, hn::Neg(hn::Abs(g)));
  const V one = hn::Set(d, 1.0f);
  const V large = hn::Div(one, hn::Add(one, e)), small = hn::Mul(e, large);
  const auto negative = hn::Lt(g, hn::Zero(d));
  return {hn::IfThenElse(negative, small, large), hn::IfThenElse(negative, large, small)};
}

// Calls body(d, c) over [0, cols): full vectors first, then single lanes, so that a tail is
// computed by the same code and no memory beyond it is touched.
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
