#include "lwm/ops/attention/result.h"

#include <ATen/ATen.h>

#include <utility>

namespace lwm::ops {

// The kernels compute exp(s - m) as 2^(s log2(e) - m log2(e)) with the second product in f32, so
// they subtract a number that differs from m by its rounding.
at::Tensor ExponentOf(const at::Tensor& m) {
  constexpr float kLog2E = 1.44269504f;
  return (m * kLog2E).to(at::kDouble) / kLog2E;
}

AttentionResult MakeAttentionResult(const AttentionCarry& carry, AttentionOutput output) {
  AttentionResult result{std::move(output.out_BTHK), std::move(output.lse_BHT), {}};
  if (result.out_BTHK.scalar_type() == at::kFloat) {
    const at::Tensor exact_BHT = ExponentOf(carry.max_BHT) + at::log(carry.sum_BHT.to(at::kDouble));
    result.lse_rest_BHT = (exact_BHT - ExponentOf(result.lse_BHT))
                              .masked_fill(~result.lse_BHT.isfinite(), 0)
                              .to(at::kFloat);
  }
  return result;
}

AttentionResult FinishAttentionResult(const AttentionCarry& carry, at::ScalarType dtype) {
  AttentionOutput output;
  FinishAttention(carry, dtype, output.out_BTHK, output.lse_BHT);
  return MakeAttentionResult(carry, std::move(output));
}

at::Tensor GradientForRoundedLse(const at::Tensor& dout_BTHK, const AttentionResult& result) {
  if (!result.lse_rest_BHT.defined()) return dout_BTHK;
  return dout_BTHK * at::exp(-result.lse_rest_BHT).transpose(1, 2).unsqueeze(-1);
}

}  // namespace lwm::ops
