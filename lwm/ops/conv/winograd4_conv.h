#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// Whether Winograd4Conv2d is the fastest convolution of bf16 images here: where the CPU lacks Intel
// AMX, or LWM_MAX_ISA excludes it.
bool Winograd4IsFaster();

// A 3x3 convolution of stride 1 of bf16 images with a border of one zero pixel, for inference on
// the CPU; its weights are prepared once. With `doubles` each pixel is repeated to 2 x 2 first.
// Computes in f32, in tiles of 4 x 4 outputs (kernels/conv/winograd4.h): 4 times fewer
// multiplications than the definition, 5.76 times when doubling. Safe to use from many threads.
//
// Accuracy: within 5e-4 of f64 relative to the largest output, before the result is rounded once to
// bf16; most of the error comes from keeping weights in 16 bits. Results do not depend on the
// number of threads. A NaN reaches the tiles of 4 x 4 that it touches, in its image only. Memory: 8
// bytes per weight (5.6 when doubling), and a few MB per thread while it runs. Cost: worth it from
// about 32 channels on.
class Winograd4Conv2d {
 public:
  Winograd4Conv2d() = default;
  // weight_OIHW [O,I,3,3], bias_O [O], of any float type; copied.
  // Throws Error(kInvalidArgument) on another shape or dtype.
  Winograd4Conv2d(const at::Tensor& weight_OIHW, const at::Tensor& bias_O, bool doubles);

  bool defined() const { return weight_PKI32_.defined(); }

  // x_NCHW bf16 [N,I,H,W], used in channels-last layout, other strides cost a copy; returns
  // [N,O,H,W], or [N,O,2H,2W], in channels-last. Throws Error(kInvalidArgument) on another shape or
  // dtype.
  at::Tensor Run(const at::Tensor& x_NCHW) const;

  // y_NCHW += Run(x_NCHW), rounded once. y_NCHW must be in channels-last layout.
  void AddTo(const at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const;

 private:
  at::Tensor RequireInput(const at::Tensor& x_NCHW) const;
  void Convolve(const at::Tensor& x_NCHW, bool add, const at::Tensor& y_NCHW) const;

  bool doubles_ = false;
  at::Tensor weight_PKI32_;  // i16, P panels of 32 output channels
  at::Tensor scale_PK32_;    // f32
  at::Tensor bias_O_;        // f32
};

}  // namespace lwm::ops
