#include "lwm/kernels/transpose.h"

#include <algorithm>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/transpose.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kBlock = 32;  // 64 bytes: a cache line of either side

void TransposeElements(const uint16_t* from, size_t rows, size_t cols, size_t from_stride,
                       uint16_t* to, size_t to_stride) {
  for (size_t r = 0; r < rows; ++r)
    for (size_t c = 0; c < cols; ++c) to[c * to_stride + r] = from[r * from_stride + c];
}

#if HWY_TARGET != HWY_SCALAR
// One of three rounds that transpose 8 x 8: interleaving rows 0,4 1,5 2,6 3,7 rotates the three
// bits of the row index and of the column index by one place, so three rounds exchange them.
template <class D, class V = hn::Vec<D>>
HWY_INLINE void Interleave(D d, const V (&in)[8], V (&out)[8]) {
  for (size_t i = 0; i < 4; ++i) {
    out[2 * i] = hn::InterleaveLower(d, in[i], in[i + 4]);
    out[2 * i + 1] = hn::InterleaveUpper(d, in[i], in[i + 4]);
  }
}

HWY_INLINE void Transpose8x8(const uint16_t* from, size_t from_stride, uint16_t* to,
                             size_t to_stride) {
  const hn::FixedTag<uint16_t, 8> d;
  hn::Vec<decltype(d)> a[8], b[8];
  for (size_t i = 0; i < 8; ++i) a[i] = hn::LoadU(d, from + i * from_stride);
  Interleave(d, a, b);
  Interleave(d, b, a);
  Interleave(d, a, b);
  for (size_t i = 0; i < 8; ++i) hn::StoreU(b[i], d, to + i * to_stride);
}
#endif

// Whole blocks by 16 transposes of 8 x 8 in registers; edges number by number.
void TransposeBlock(const uint16_t* from, size_t rows, size_t cols, size_t from_stride,
                    uint16_t* to, size_t to_stride) {
#if HWY_TARGET != HWY_SCALAR
  if (rows == kBlock && cols == kBlock) {
    for (size_t i = 0; i < kBlock; i += 8)
      for (size_t j = 0; j < kBlock; j += 8)
        Transpose8x8(from + j * from_stride + i, from_stride, to + i * to_stride + j, to_stride);
    return;
  }
#endif
  TransposeElements(from, rows, cols, from_stride, to, to_stride);
}

// Blocks of 32 x 32: whole cache lines are read and written. Stripes of 128 columns: the pages that
// 128 rows of the result lie in stay in the TLB.
void TransposeMatrix(const uint16_t* from, size_t rows, size_t cols, size_t from_stride,
                     uint16_t* to, size_t to_stride) {
  constexpr size_t kStripe = 4 * kBlock;
  for (size_t stripe = 0; stripe < cols; stripe += kStripe)
    for (size_t r = 0; r < rows; r += kBlock)
      for (size_t c = stripe; c < std::min(stripe + kStripe, cols); c += kBlock)
        TransposeBlock(from + r * from_stride + c, std::min(kBlock, rows - r),
                       std::min(kBlock, cols - c), from_stride, to + c * to_stride + r, to_stride);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(TransposeMatrix);

void Transpose(const uint16_t* from_RC, size_t rows, size_t cols, size_t from_stride,
               uint16_t* to_CR, size_t to_stride) noexcept {
  HWY_DYNAMIC_DISPATCH(TransposeMatrix)(from_RC, rows, cols, from_stride, to_CR, to_stride);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
