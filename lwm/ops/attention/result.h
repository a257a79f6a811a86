#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/ops/attention/block.h"

namespace lwm::ops {

// Attention's output and the statistics that its backward pass needs.
struct AttentionResult {
  at::Tensor out_BTHK;  // dtype of q
  at::Tensor lse_BHT;   // f32, natural log of the sum of exp of the scaled scores; -inf: saw no key
  // f32: the rounding error of lse. Where scores are in the hundreds it is 1e-5, which would be a
  // relative error of the row's weights in the backward pass. Defined for f32 only; may be dropped.
  at::Tensor lse_rest_BHT;
};

// The exact number, f64, that the kernels subtract from scaled scores for an f32 maximum or lse m.
at::Tensor ExponentOf(const at::Tensor& m);

AttentionResult FinishAttentionResult(const AttentionCarry& carry, at::ScalarType dtype);
// The same for a carry whose output was computed with the last keys.
AttentionResult MakeAttentionResult(const AttentionCarry& carry, AttentionOutput output);

// dout * exp(-lse_rest). The backward pass computes weights from the rounded lse and is linear in
// dout, so this factor corrects them. dout itself where there is no rest.
at::Tensor GradientForRoundedLse(const at::Tensor& dout_BTHK, const AttentionResult& result);

}  // namespace lwm::ops
