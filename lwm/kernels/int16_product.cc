#include "lwm/kernels/int16_product.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/int16_product.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// Rows of one block. Two vectors of sums each, two of weights and one broadcast number: 27 of the
// 32 registers with AVX-512, 15 of 16 with AVX2.
constexpr size_t kMostRows = HWY_MAX_BYTES >= 64 ? 12 : 6;

// Weights become f32 once per call, into scratch that stays in the cache, not once per block of
// rows: hence at least 12 rows to be worth it. The scale is applied here, so that the sums need
// none.
void Widen(const int16_t* w_K32, const float* scale_32, size_t depth, float* to_K32) {
  const hn::ScalableTag<float> d;
  const hn::RebindToSigned<decltype(d)> d32;
  const hn::Rebind<int16_t, decltype(d)> d16;
  const size_t lanes = hn::Lanes(d);
  for (size_t k = 0; k < depth; ++k)
    for (size_t n = 0; n < kInt16Panel; n += lanes) {
      const size_t at = k * kInt16Panel + n;
      const auto w = hn::ConvertTo(d, hn::PromoteTo(d32, hn::LoadU(d16, w_K32 + at)));
      hn::StoreU(hn::Mul(w, hn::LoadU(d, scale_32 + n)), d, to_K32 + at);
    }
}

// R rows and two vectors of columns. Meanwhile fetches `next`, the weights of the next product,
// into the second-level cache, which saves a tenth of a whole VQGAN's time. A prefetch never
// faults, so `next` may lie beyond the last weights.
template <size_t R>
HWY_INLINE void RowBlock(const float* a_RK, size_t depth, const float* w_K32, const int16_t* next,
                         float* c_R32) {
  const hn::ScalableTag<float> d;
  using V = hn::Vec<decltype(d)>;
  const size_t lanes = hn::Lanes(d);
  V sum[2 * R];
  HWY_UNROLL(24)
  for (size_t i = 0; i < 2 * R; ++i) sum[i] = hn::Zero(d);
  for (size_t k = 0; k < depth; ++k) {
    const V low = hn::LoadU(d, w_K32 + k * kInt16Panel);
    const V high = hn::LoadU(d, w_K32 + k * kInt16Panel + lanes);
    __builtin_prefetch(next + k * kInt16Panel, 0, 2);
    HWY_UNROLL(12)
    for (size_t r = 0; r < R; ++r) {
      const V a = hn::Set(d, a_RK[r * depth + k]);
      sum[2 * r] = hn::MulAdd(a, low, sum[2 * r]);
      sum[2 * r + 1] = hn::MulAdd(a, high, sum[2 * r + 1]);
    }
  }
  HWY_UNROLL(12)
  for (size_t r = 0; r < R; ++r) {
    hn::StoreU(sum[2 * r], d, c_R32 + r * kInt16Panel);
    hn::StoreU(sum[2 * r + 1], d, c_R32 + r * kInt16Panel + lanes);
  }
}

// Any number of rows up to R: the last block gets its own constant size, whose sums are in
// registers.
template <size_t R>
void Rows(const float* a_RK, size_t rows, size_t depth, const float* w_K32, const int16_t* next,
          float* c_R32) {
  if constexpr (R > 1)
    if (rows < R) return Rows<R - 1>(a_RK, rows, depth, w_K32, next, c_R32);
  const size_t step = 2 * hn::Lanes(hn::ScalableTag<float>());
  for (size_t n = 0; n < kInt16Panel; n += step)
    RowBlock<R>(a_RK, depth, w_K32 + n, next, c_R32 + n);
}

void Product(const float* a_RK, size_t rows, size_t depth, const int16_t* w_K32,
             const float* scale_32, float* scratch, float* c_R32) {
  Widen(w_K32, scale_32, depth, scratch);
  for (size_t r = 0; r < rows; r += kMostRows)
    Rows<kMostRows>(a_RK + r * depth, HWY_MIN(kMostRows, rows - r), depth, scratch,
                    w_K32 + depth * kInt16Panel, c_R32 + r * kInt16Panel);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(Product);

void Int16Product(const float* a_RK, size_t rows, size_t depth, const int16_t* w_K32,
                  const float* scale_32, float* scratch, float* c_R32) noexcept {
  HWY_DYNAMIC_DISPATCH(Product)(a_RK, rows, depth, w_K32, scale_32, scratch, c_R32);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
