#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// y = silu(v), v = (x - mean) / sqrt(var + eps) * scale + bias, silu(v) = v / (1 + exp(-v)); mean
// and variance are those of one image and one group of neighbouring channels, in f32 or better.
// Differentiable by LibTorch's autograd in x, scale and bias.
//
//   x_NCHW           in  f32 or bf16 [N,C,H,W]; channels-last strides are used as they are, any
//                        other strides cost a copy. f64 is composed of LibTorch's operators.
//   scale_C, bias_C  in  f32 or bf16 [C]; with x in f64 also f64
//   groups           in  divides C
//   eps              in  > 0, in units of x^2
//   return           y_NCHW, dtype and shape of x, channels-last
//
// Accuracy: f32 results and gradients within 8e-7 of f64, relative to the largest; also where the
// mean is 1000 deviations. They do not depend on the number of threads. Cost: reads x twice
// (backward: x and dy twice), writes y once; keeps x.
// Throws Error(kInvalidArgument) on another shape or dtype.
at::Tensor GroupNormSilu(const at::Tensor& x_NCHW, const at::Tensor& scale_C,
                         const at::Tensor& bias_C, int64_t groups, double eps);

}  // namespace lwm::ops
