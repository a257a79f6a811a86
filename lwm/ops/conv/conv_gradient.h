#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// The gradient of the weights of at::conv2d(x, weight, bias, stride, padding) with a square kernel,
// in bf16 on Intel AMX (kernels/conv/gradient_amx.h).

// Whether this CPU has AMX and the number of output channels is a multiple of 16.
bool HasConvWeightGradient(int64_t out_channels);

//   x_NCHW, dy_NCHW  bf16 [N,I,H,W] and [N,O,h,w], h = (H + 2 padding - side) / stride + 1; other
//                    layouts than channels-last cost a copy
//   return           bf16 [O,I,side,side] in channels-last layout
//
// Sums in f32, rounded once. Does not depend on the number of threads. Memory: a copy of dy and
// 8 * side^2 bytes a pixel of dy.
// Throws Error(kInvalidArgument) on another shape or dtype.
at::Tensor ConvWeightGradient(const at::Tensor& x_NCHW, const at::Tensor& dy_NCHW, int64_t side,
                              int64_t stride, int64_t padding);

}  // namespace lwm::ops
