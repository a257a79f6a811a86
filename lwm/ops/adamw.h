#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

#include "lwm/kernels/elementwise/adamw.h"

namespace lwm::ops {

// The tensors of kernels::AdamW: flat, contiguous, of one length; f32, the copy bf16.
struct AdamWTensors {
  at::Tensor gradient_n, value_n, first_n, second_n;
  at::Tensor average_n, copy_n;  // may be undefined
};

// kernels::AdamW of elements [begin, end) on all threads. Results do not depend on their number.
void AdamW(const kernels::AdamWStep& step, const AdamWTensors& tensors, int64_t begin, int64_t end);

}  // namespace lwm::ops
