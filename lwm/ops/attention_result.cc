#include "lwm/ops/attention_result.h"

#include <ATen/ATen.h>

namespace lwm::ops {

// The kernels compute exp(s - m) as 2^(s log2(e) - m log2(e)) with the second product in f32.
at::Tensor ExponentOf(const at::Tensor& m) {
  constexpr float kLog2E = 1.44269504f;
  return (m * kLog2E).to(at::kDouble) / kLog2E;
}

AttentionResult FinishAttentionResult(const AttentionCarry& carry, at::ScalarType dtype) {
  AttentionResult result;
  FinishAttention(carry, dtype, result.out_BTHK, result.lse_BHT);
  if (dtype == at::kFloat) {
    const at::Tensor exact_BHT = ExponentOf(carry.max_BHT) + at::log(carry.sum_BHT.to(at::kDouble));
    result.lse_rest_BHT = (exact_BHT - ExponentOf(result.lse_BHT))
                              .masked_fill(~result.lse_BHT.isfinite(), 0)
                              .to(at::kFloat);
  }
  return result;
}

at::Tensor GradientForRoundedLse(const at::Tensor& dout_BTHK, const AttentionResult& result) {
  if (!result.lse_rest_BHT.defined()) return dout_BTHK;
  return dout_BTHK * at::exp(-result.lse_rest_BHT).transpose(1, 2).unsqueeze(-1);
}

}  // namespace lwm::ops
