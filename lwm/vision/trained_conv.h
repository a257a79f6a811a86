#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::vision {

// at::conv2d of f32 or bf16 images for training, everything in channels-last layout, weights and
// their gradients too (other layouts cost a copy): nothing is laid out anew in between. Wide 3x3
// ones in f32 run as ops::WinogradTrainedConv2d.
//
//   x_NCHW        [N,I,H,W]; weight_OIHW [O,I,k,k]; bias_O [O]; all of one dtype
//   return        [N,O,h,w]
//
// Where LibTorch has no vector instructions for bf16, bf16 is widened to f32 (ConvArithmetic) and
// results and gradients are rounded once; that keeps x and weights in f32 until the backward.
// Differentiable once in x, weight and bias by LibTorch's autograd.
at::Tensor TrainedConv(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                       const at::Tensor& bias_O, int64_t stride, int64_t padding);

}  // namespace lwm::vision
