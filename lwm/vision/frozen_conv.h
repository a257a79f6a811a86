#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/ops/conv/winograd4_conv.h"
#include "lwm/ops/conv/winograd_conv.h"

namespace lwm::vision {

enum class ConvKind {
  kSame,    // stride 1, border of kernel / 2 zero pixels
  kHalve,   // 3x3 of stride 2 after one row and column of zeros at the bottom and right
  kDouble,  // 3x3 with a border of one, after each pixel was repeated to 2 x 2
};

// One convolution of the model prepared for inference: weights in the layout and form that the
// arithmetic wants, sums with another image in the same pass. Same results as the definition but
// for rounding. Wide 3x3 ones of stride 1 run in f32 as ops::WinogradConv2d; in bf16, where
// ops::Winograd4IsFaster, as ops::Winograd4Conv2d, which doubles too. Else doubling runs as four
// 2x2 convolutions of the small image, one per output phase (2.25 times fewer multiplications).
// Images are in channels-last layout. Safe to use from many threads; not differentiable.
class FrozenConv {
 public:
  // `weight_OIHW` and `bias_O` of any float type; `dtype` (f32 or bf16) is that of images. The
  // arithmetic is in ConvArithmetic of it, and its results are rounded once.
  FrozenConv(ConvKind kind, const at::Tensor& weight_OIHW, const at::Tensor& bias_O,
             at::ScalarType dtype);

  at::Tensor Run(const at::Tensor& x_NCHW) const;
  // y_NCHW += Run(x_NCHW); kSame only.
  void AddTo(at::Tensor& y_NCHW, const at::Tensor& x_NCHW) const;

 private:
  at::Tensor Compute(const at::Tensor& x_NCHW) const;  // in the dtype of the arithmetic

  ConvKind kind_;
  at::ScalarType dtype_, arithmetic_;  // of images, of what computes
  ops::WinogradConv2d winograd_;       // one of these three is defined
  ops::Winograd4Conv2d winograd4_;
  at::Tensor weight_OIHW_, bias_O_;  // kDouble: [4 O,I,2,2], phases (row, column) outside
};

}  // namespace lwm::vision
