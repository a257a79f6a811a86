#include "lwm/ops/attention_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <cmath>
#include <limits>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

template <class T>
void FinishRows(const AttentionCarry& carry, at::Tensor& out_BTHK, at::Tensor& lse_BHT) {
  const int64_t tokens = carry.acc_BTHK.size(1), heads = carry.acc_BTHK.size(2);
  const int64_t dim = carry.acc_BTHK.size(3);
  const float* acc = carry.acc_BTHK.const_data_ptr<float>();
  const float* max = carry.max_BHT.const_data_ptr<float>();
  const float* sum = carry.sum_BHT.const_data_ptr<float>();
  T* out = out_BTHK.data_ptr<T>();
  float* lse = lse_BHT.data_ptr<float>();
  at::parallel_for(0, carry.acc_BTHK.size(0) * tokens, 64, [&](int64_t first, int64_t last) {
    for (int64_t bt = first; bt < last; ++bt) {
      for (int64_t h = 0; h < heads; ++h) {
        const int64_t stat = (bt / tokens * heads + h) * tokens + bt % tokens;
        const bool nothing = sum[stat] == 0.0f;
        const float factor = nothing ? 0.0f : 1.0f / sum[stat];
        const int64_t row = (bt * heads + h) * dim;
        for (int64_t k = 0; k < dim; ++k) out[row + k] = static_cast<T>(acc[row + k] * factor);
        lse[stat] = nothing ? kMinusInfinity : max[stat] + std::log(sum[stat]);
      }
    }
  });
}

}  // namespace

AttentionCarry MakeAttentionCarry(const at::Tensor& q_BTHK) {
  const int64_t batch = q_BTHK.size(0), tokens = q_BTHK.size(1), heads = q_BTHK.size(2);
  const auto f32 = at::TensorOptions(at::kFloat);
  return {at::full({batch, heads, tokens}, kMinusInfinity, f32),
          at::zeros({batch, heads, tokens}, f32),
          at::zeros({batch, tokens, heads, q_BTHK.size(3)}, f32)};
}

void FinishAttention(const AttentionCarry& carry, at::ScalarType dtype, at::Tensor& out_BTHK,
                     at::Tensor& lse_BHT) {
  LWM_REQUIRE(dtype == at::kFloat || dtype == at::kBFloat16,
              "attention: the output type must be f32 or bf16, got ", dtype);
  out_BTHK = at::empty(carry.acc_BTHK.sizes(), at::TensorOptions(dtype));
  lse_BHT = at::empty(carry.max_BHT.sizes(), at::TensorOptions(at::kFloat));
  if (dtype == at::kFloat) {
    FinishRows<float>(carry, out_BTHK, lse_BHT);
  } else {
    FinishRows<at::BFloat16>(carry, out_BTHK, lse_BHT);
  }
}

at::Tensor AttentionDelta(const at::Tensor& dout_BTHK, const at::Tensor& out_BTHK) {
  LWM_REQUIRE(dout_BTHK.sizes() == out_BTHK.sizes() && dout_BTHK.dim() == 4,
              "attention: dout must have the shape of out, ", out_BTHK.sizes(), ", got ",
              dout_BTHK.sizes());
  const int64_t batch = out_BTHK.size(0), tokens = out_BTHK.size(1), heads = out_BTHK.size(2);
  at::Tensor delta_BHT = at::empty({batch, heads, tokens}, at::TensorOptions(at::kFloat));
  // By slices of tokens: the f32 products of all of them would be the largest buffer of the layer.
  constexpr int64_t kSlice = 1024;
  for (int64_t t = 0; t < tokens; t += kSlice) {
    const int64_t end = std::min(tokens, t + kSlice);
    const at::Tensor product =
        dout_BTHK.slice(1, t, end).to(at::kFloat) * out_BTHK.slice(1, t, end).to(at::kFloat);
    delta_BHT.slice(2, t, end).copy_(product.sum(-1).transpose(1, 2));
  }
  return delta_BHT;
}

}  // namespace lwm::ops
