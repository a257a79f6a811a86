#include "lwm/kernels/elementwise/swiglu.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/swiglu.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

template <class T>
HWY_INLINE void Forward(const T* g_N, const T* u_N, size_t n, T* a_N) {
  ForEachLanes(n, [=](auto d, size_t i) HWY_ATTR {
    const auto g = LoadLanes(d, g_N + i);
    const auto u = LoadLanes(d, u_N + i);
    StoreLanes(hn::Mul(hn::Mul(g, MakeGate(d, g).sigmoid), u), d, a_N + i);
  });
}

// In place over all three arrays: a, dg and du need the same exp, and no fourth buffer of that size
// is needed. All loads come before the stores.
template <class T>
HWY_INLINE void Backward(T* da_N, T* g_N, T* u_N, size_t n) {
  ForEachLanes(n, [=](auto d, size_t i) HWY_ATTR {
    const auto da = LoadLanes(d, da_N + i);
    const auto g = LoadLanes(d, g_N + i);
    const auto u = LoadLanes(d, u_N + i);
    const auto gate = MakeGate(d, g);
    const auto silu = hn::Mul(g, gate.sigmoid);
    const auto slope = hn::MulAdd(silu, gate.rest, gate.sigmoid);
    StoreLanes(hn::Mul(silu, u), d, da_N + i);
    StoreLanes(hn::Mul(hn::Mul(da, u), slope), d, g_N + i);
    StoreLanes(hn::Mul(da, silu), d, u_N + i);
  });
}

void SwigluF32(const float* g_N, const float* u_N, size_t n, float* a_N) {
  Forward(g_N, u_N, n, a_N);
}
void SwigluBf16(const uint16_t* g_N, const uint16_t* u_N, size_t n, uint16_t* a_N) {
  Forward(g_N, u_N, n, a_N);
}
void SwigluBackwardF32(float* da_N, float* g_N, float* u_N, size_t n) {
  Backward(da_N, g_N, u_N, n);
}
void SwigluBackwardBf16(uint16_t* da_N, uint16_t* g_N, uint16_t* u_N, size_t n) {
  Backward(da_N, g_N, u_N, n);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(SwigluF32);
HWY_EXPORT(SwigluBf16);
HWY_EXPORT(SwigluBackwardF32);
HWY_EXPORT(SwigluBackwardBf16);

void Swiglu(const float* g_N, const float* u_N, size_t n, float* a_N) noexcept {
  HWY_DYNAMIC_DISPATCH(SwigluF32)(g_N, u_N, n, a_N);
}
void Swiglu(const uint16_t* g_N, const uint16_t* u_N, size_t n, uint16_t* a_N) noexcept {
  HWY_DYNAMIC_DISPATCH(SwigluBf16)(g_N, u_N, n, a_N);
}
void SwigluBackward(float* da_to_a_N, float* g_to_dg_N, float* u_to_du_N, size_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(SwigluBackwardF32)(da_to_a_N, g_to_dg_N, u_to_du_N, n);
}
void SwigluBackward(uint16_t* da_to_a_N, uint16_t* g_to_dg_N, uint16_t* u_to_du_N,
                    size_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(SwigluBackwardBf16)(da_to_a_N, g_to_dg_N, u_to_du_N, n);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
