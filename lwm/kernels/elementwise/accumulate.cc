#include "lwm/kernels/elementwise/accumulate.h"

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/accumulate.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// Sums in f32: a bf16 sum would stop growing once terms fall below its 8 bits.
void AccumulateBf16(float* sum_N, const uint16_t* term_N, size_t n) {
  ForEachLanes(n, [=](auto d, size_t i) HWY_ATTR {
    StoreLanes(hn::Add(LoadLanes(d, sum_N + i), LoadLanes(d, term_N + i)), d, sum_N + i);
  });
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(AccumulateBf16);

void Accumulate(float* sum_N, const uint16_t* term_N, size_t n) noexcept {
  HWY_DYNAMIC_DISPATCH(AccumulateBf16)(sum_N, term_N, n);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
