#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/ops/linear_weight.h"

namespace lwm::ops {

// y = x w^T over [T,C] and [R,C]; matmul inputs in their own dtype, f32 accumulation. Up to
// kGemvRows tokens of contiguous tensors run as Gemv (gemv.h), at the speed of reading w.
at::Tensor Linear(const at::Tensor& x_TC, const LinearWeight& w_RC);

// Several matrices times one x; with few tokens, threads wait for each other once instead of once a
// matrix.
std::vector<at::Tensor> LinearEach(const at::Tensor& x_TC, const std::vector<LinearWeight>& w_RC);

// dw_RC (f32) += dy^T x over dy [T,R], x [T,C]; a bf16 product is rounded at most once before it is
// added.
void AddWeightGradient(const at::Tensor& dy_TR, const at::Tensor& x_TC, at::Tensor& dw_RC);

// dx = dy w, dtype of dy; dw_RC (f32) += dy^T x.
at::Tensor LinearBackward(const at::Tensor& dy_TR, const at::Tensor& x_TC, const LinearWeight& w_RC,
                          at::Tensor& dw_RC);

}  // namespace lwm::ops
