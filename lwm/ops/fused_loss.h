#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/ops/linear_weight.h"

namespace lwm::ops {

struct LossResult {
  double loss = 0;   // sum of weight * -log p(target) over the tokens whose weight is not 0
  at::Tensor nll_T;  // f32 [T], -log p(target) of each token (weight not applied)
  at::Tensor dx_TD;  // gradient of scale * loss, dtype of x; undefined unless asked for
};

// Cross entropy of x head^T against targets. Works on slices of tokens: logits, log-sum-exp, loss
// and both gradients of a slice, then the next one. No [T,V] buffer ever exists: a slice takes at
// most 128 MiB. bf16 rounds inputs and gradients, never logits: nll is within 2e-5 of f64 of the
// same inputs where |logits| <= 100. The bits of nll and loss do not depend on the number of
// threads.
//
//   x_TD        in  f32 or bf16 [T,D], contiguous: normalised hidden states of the tokens that have
//                   a target in this head
//   head_VD     in  same dtype [V,D]
//   target_T    in  i64 [T], 0 <= target < V
//   weight_T    in  f32 [T]
//   dhead_VD    in-out  f32 [V,D], the gradient of scale * loss is added; nullptr = forward only,
//                   no dx
// Throws Error(kInvalidArgument) on a target out of range, naming it.
LossResult FusedLoss(const at::Tensor& x_TD, const LinearWeight& head_VD,
                     const at::Tensor& target_T, const at::Tensor& weight_T, at::Tensor* dhead_VD,
                     double scale = 1);

}  // namespace lwm::ops
