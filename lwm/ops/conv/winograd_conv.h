#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// A 3x3 convolution of stride 1 with a border of one zero pixel, for inference in f32 on the CPU;
// its weights are prepared once. It needs 2.25 times fewer multiplications than the definition
// (kernels/conv/winograd.h). Safe to use from many threads.
//
// Accuracy: within 2e-6 of f64, relative to the largest output. Memory: 16/9 of the weights, and a
// few MB per thread while it runs. Cost: worth it from about 32 channels on.
class WinogradConv2d {
 public:
  WinogradConv2d() = default;
  // weight_OIHW f32 [O,I,3,3], bias_O f32 [O]; copied.
  // Throws Error(kInvalidArgument) on another shape or dtype.
  WinogradConv2d(const at::Tensor& weight_OIHW, const at::Tensor& bias_O);

  bool defined() const { return weight_KIO_.defined(); }

  // x_NCHW f32 [N,I,H,W], used in channels-last layout, other strides cost a copy; returns
  // [N,O,H,W] in channels-last. Throws Error(kInvalidArgument) on another shape or dtype.
  at::Tensor Run(const at::Tensor& x_NCHW) const;

  // y_NCHW += Run(x_NCHW). y_NCHW must be in channels-last layout.
  void AddTo(const at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const;

 private:
  at::Tensor RequireInput(const at::Tensor& x_NCHW) const;

  at::Tensor weight_KIO_;  // f32 [16,I,O]
  at::Tensor bias_O_;
};

// The same convolution for training: at::conv2d(x, weight, bias, 1, 1), differentiable once in all
// three. The weight gradient too takes 2.25 times fewer multiplications.
//
//   x_NCHW       f32 [N,I,H,W]; weight_OIHW f32 [O,I,3,3], bias_O f32 [O]
//   return       [N,O,H,W], in channels-last layout, as are the gradients of x and weight
//
// x and weight are used in channels-last layout; others cost a copy.
//
// Accuracy: results and gradients within 3e-6 of f64, relative to the largest. They do not depend
// on the number of threads. Keeps x and weight.
// Throws Error(kInvalidArgument) on another shape or dtype.
at::Tensor WinogradTrainedConv2d(const at::Tensor& x_NCHW, const at::Tensor& weight_OIHW,
                                 const at::Tensor& bias_O);

}  // namespace lwm::ops
