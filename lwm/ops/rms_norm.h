#pragma once

#include <ATen/core/Tensor.h>

namespace lwm::ops {

// y[t,d] = x[t,d] * w[d] / sqrt(mean over d of x[t,d]^2 + eps), statistics in f32.
//
//   x_TD   in  f32 or bf16, contiguous, any leading dims (seen as [T,D])
//   w_D    in  f32 or bf16 [D]
//   return y_TD, dtype and shape of x
// Throws Error(kInvalidArgument) on another shape, dtype or layout.
at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& w_D, double eps);

// Returns dx_TD (dtype of x) and adds the weight's gradient to dw_D (f32 [D]).
at::Tensor RmsNormBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD, const at::Tensor& w_D,
                           double eps, at::Tensor& dw_D);

}  // namespace lwm::ops
