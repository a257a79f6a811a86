#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::vision {

// The dtype that convolutions of f32 or bf16 images are computed in: theirs, but f32 for bf16
// where LibTorch has no vector instructions for bf16 (ops/product.h).
at::ScalarType ConvArithmetic(at::ScalarType dtype);

// at::conv2d of x_NCHW, weight_OIHW and bias_O (which may be undefined) of one dtype, in
// ConvArithmetic of it, the result rounded once to their dtype. Differentiable as at::conv2d is;
// where it computes in f32, copies of x and weight in f32 are kept for that.
at::Tensor Conv2d(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
                  int64_t stride, int64_t padding);

}  // namespace lwm::vision
