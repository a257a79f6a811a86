#include "lwm/ops/attention_result.h"

#include <ATen/ATen.h>

namespace lwm::ops {

AttentionResult FinishAttentionResult(const AttentionCarry& carry, at::ScalarType dtype) {
  AttentionResult result;
  FinishAttention(carry, dtype, result.out_BTHK, result.lse_BHT);
  if (dtype == at::kFloat) {
    const at::Tensor exact_BHT =
        carry.max_BHT.to(at::kDouble) + at::log(carry.sum_BHT.to(at::kDouble));
    result.lse_rest_BHT =
        (exact_BHT - result.lse_BHT).masked_fill(~result.lse_BHT.isfinite(), 0).to(at::kFloat);
  }
  return result;
}

at::Tensor GradientForRoundedLse(const at::Tensor& dout_BTHK, const AttentionResult& result) {
  if (!result.lse_rest_BHT.defined()) return dout_BTHK;
  return dout_BTHK * at::exp(-result.lse_rest_BHT).transpose(1, 2).unsqueeze(-1);
}

}  // namespace lwm::ops
