#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::ops {

// A 3x3 convolution of stride 1 with a border of one zero pixel, its weights prepared once: for
// inference in f32 on the CPU, where it needs 2.25 times fewer multiplications than the definition
// (kernels/winograd.h). Safe to use from many threads.
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
  struct Job;
  void RunInto(const at::Tensor& x_NCHW, const float* residual, const at::Tensor& y_NCHW) const;
  void RunByTiles(const Job& job, int64_t all, int64_t at_once) const;
  void RunByPlanes(const Job& job, int64_t tiles) const;

  at::Tensor weight_KIO_;  // f32 [16,I,O]
  at::Tensor bias_O_;
};

}  // namespace lwm::ops
