#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <type_traits>

#include "lwm/base/error.h"

namespace lwm::ops {

// Kernels see bf16 as its bits; these bridge tensors and kernels.
inline void RequireFloatOrBf16(const char* op, const char* name, const at::Tensor& x) {
  LWM_REQUIRE(x.scalar_type() == at::kFloat || x.scalar_type() == at::kBFloat16, op,
              ": want f32 or bf16 ", name, ", got ", x.scalar_type());
}

inline void RequireGradient(const char* op, const char* name, const at::Tensor& gradient,
                            at::IntArrayRef sizes) {
  LWM_REQUIRE(gradient.defined() && gradient.scalar_type() == at::kFloat &&
                  gradient.sizes() == sizes && gradient.is_contiguous(),
              op, ": want contiguous f32 ", name, " ", sizes);
}

// body(float{}) or body(uint16_t{}), by the tensor's dtype.
template <class Body>
void DispatchElement(const at::Tensor& x, const Body& body) {
  if (x.scalar_type() == at::kFloat) {
    body(float{});
  } else {
    LWM_CHECK(x.scalar_type() == at::kBFloat16, "f32 or bf16");
    body(uint16_t{});
  }
}

template <class T>
const T* Elements(const at::Tensor& x) {
  return static_cast<const T*>(x.const_data_ptr());
}

template <class T>
T* MutableElements(const at::Tensor& x) {
  return static_cast<T*>(x.mutable_data_ptr());
}

}  // namespace lwm::ops
