#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// One step of AdamW (Loshchilov & Hutter 2019), decay decoupled:
//   g = gradient_factor * gradient;  m += (1 - beta1) (g - m);  v = beta2 v + (1 - beta2) g^2
//   value = value (1 - lr decay) - lr / correction1 * m / (sqrt(v / correction2) + eps)
struct AdamWStep {
  double lr = 0, beta1 = 0.9, beta2 = 0.99, eps = 1e-8, decay = 0;
  double correction1 = 1, correction2 = 1;  // 1 - beta^steps
  double gradient_factor = 1;
  double average_share = 0;  // afterwards average += average_share * (value - average)
};

// f32 arrays of the same length. May be null: `average_n`, and `copy_n`, which receives the new
// values as bf16 bits, rounded to nearest even.
struct AdamWArrays {
  const float* gradient_n;
  float *value_n, *first_n, *second_n;
  float* average_n;
  uint16_t* copy_n;
};

// Updates elements [begin, end). Domain: any alignment; a NaN stays in its element. Arithmetic in
// f32: relative error of a change below 1e-6. Cost: each array is read and written once. Threads:
// any, on disjoint ranges.
void AdamW(const AdamWStep& step, const AdamWArrays& arrays, size_t begin, size_t end) noexcept;

}  // namespace lwm::kernels
