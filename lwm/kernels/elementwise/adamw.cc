#include "lwm/kernels/elementwise/adamw.h"

#include <cmath>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/elementwise/adamw.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {

// The factors of a step, computed in f64 and rounded to f32 once. 1 - beta is taken in f64: in f32
// it would lose most digits of a beta near 1.
struct AdamWFactors {
  explicit AdamWFactors(const AdamWStep& step)
      : gradient(static_cast<float>(step.gradient_factor)),
        rest1(static_cast<float>(1 - step.beta1)),
        beta2(static_cast<float>(step.beta2)),
        rest2(static_cast<float>(1 - step.beta2)),
        keep(static_cast<float>(1 - step.lr * step.decay)),
        rate(static_cast<float>(step.lr / step.correction1)),
        root_factor(static_cast<float>(1 / std::sqrt(step.correction2))),
        eps(static_cast<float>(step.eps)),
        average_share(static_cast<float>(step.average_share)) {}
  float gradient, rest1, beta2, rest2, keep, rate, root_factor, eps, average_share;
};

// Weights, moments, running average and bf16 copy in one pass: the step is bound by memory, and
// three passes would read the weights three times (docs/adr/0010).
void Update(const AdamWStep& step, const AdamWArrays& arrays, size_t begin, size_t end) {
  const AdamWFactors factors(step);
  const AdamWArrays to = arrays;
  ForEachLanes(end - begin, [=](auto d, size_t at) HWY_ATTR {
    const size_t i = begin + at;
    const auto set = [=](float x) HWY_ATTR { return hn::Set(d, x); };
    const auto g = hn::Mul(hn::LoadU(d, to.gradient_n + i), set(factors.gradient));
    // As a difference, g - m is small where m has settled, and m keeps its digits.
    const auto old = hn::LoadU(d, to.first_n + i);
    const auto first = hn::MulAdd(set(factors.rest1), hn::Sub(g, old), old);
    const auto second = hn::MulAdd(hn::LoadU(d, to.second_n + i), set(factors.beta2),
                                   hn::Mul(hn::Mul(g, g), set(factors.rest2)));
    // sqrt(v / c) = sqrt(v) * (1 / sqrt(c)): a multiplication instead of a division per element.
    const auto root = hn::MulAdd(hn::Sqrt(second), set(factors.root_factor), set(factors.eps));
    const auto change = hn::Mul(hn::Div(first, root), set(factors.rate));
    const auto value = hn::MulSub(hn::LoadU(d, to.value_n + i), set(factors.keep), change);
    hn::StoreU(first, d, to.first_n + i);
    hn::StoreU(second, d, to.second_n + i);
    hn::StoreU(value, d, to.value_n + i);
    if (to.copy_n) StoreLanes(value, d, to.copy_n + i);
    if (!to.average_n) return;
    const auto average = hn::LoadU(d, to.average_n + i);
    hn::StoreU(hn::MulAdd(set(factors.average_share), hn::Sub(value, average), average), d,
               to.average_n + i);
  });
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(Update);

void AdamW(const AdamWStep& step, const AdamWArrays& arrays, size_t begin, size_t end) noexcept {
  HWY_DYNAMIC_DISPATCH(Update)(step, arrays, begin, end);
}
}  // namespace lwm::kernels
#endif  // HWY_ONCE
