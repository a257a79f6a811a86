#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::vision {

// at::conv2d of f32 or bf16 pictures in channels-last layout, for training: the same results and
// gradients, but weights stay contiguous, so that a gradient comes out of oneDNN in the layout of
// its weight, and their channels-last copy is made once for both directions and outside the graph.
//
//   x_NCHW        [N,I,H,W]; weight_OIHW [O,I,k,k] contiguous; bias_O [O]; all of one dtype
//   return        [N,O,h,w] in channels-last layout
//
// Differentiable once in x, weight and bias by LibTorch's autograd.
at::Tensor TrainedConv(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                       const at::Tensor& bias_O, int64_t stride, int64_t padding);

}  // namespace lwm::vision
