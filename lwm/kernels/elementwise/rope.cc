#include "lwm/kernels/elementwise/rope.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/rope.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

template <class T>
HWY_INLINE void RotateHead(T* first_R, T* second_R, const float* cos_R, const float* sin_R,
                           float sign, size_t pairs) {
  ForEachLanes(pairs, [=](auto d, size_t r) HWY_ATTR {
    const auto a = LoadLanes(d, first_R + r);
    const auto b = LoadLanes(d, second_R + r);
    const auto cosine = hn::LoadU(d, cos_R + r);
    const auto sine = hn::Mul(hn::LoadU(d, sin_R + r), hn::Set(d, sign));
    StoreLanes(hn::NegMulAdd(b, sine, hn::Mul(a, cosine)), d, first_R + r);
    StoreLanes(hn::MulAdd(a, sine, hn::Mul(b, cosine)), d, second_R + r);
  });
}

// All heads of a token take the same angles, so cos and sin stay in L1.
template <class T>
HWY_INLINE void Rotate(T* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
                       float sign) {
  const size_t pairs = shape.head_dim / 2;
  for (size_t t = 0; t < shape.tokens; ++t)
    for (size_t h = 0; h < shape.heads; ++h) {
      T* x_K = x_THK + t * shape.token_stride + h * shape.head_stride;
      RotateHead(x_K, x_K + pairs, cos_TR + t * pairs, sin_TR + t * pairs, sign, pairs);
    }
}

void RopeF32(float* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
             float sign) {
  Rotate(x_THK, shape, cos_TR, sin_TR, sign);
}
void RopeBf16(uint16_t* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
              float sign) {
  Rotate(x_THK, shape, cos_TR, sin_TR, sign);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(RopeF32);
HWY_EXPORT(RopeBf16);

void Rope(float* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
          bool inverse) noexcept {
  HWY_DYNAMIC_DISPATCH(RopeF32)(x_THK, shape, cos_TR, sin_TR, inverse ? -1.0f : 1.0f);
}
void Rope(uint16_t* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
          bool inverse) noexcept {
  HWY_DYNAMIC_DISPATCH(RopeBf16)(x_THK, shape, cos_TR, sin_TR, inverse ? -1.0f : 1.0f);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
