#include "lwm/model/layer.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "lwm/ops/linear.h"
#include "lwm/ops/rms_norm.h"
#include "lwm/ops/tensor_parallel.h"

namespace lwm::model {
namespace {

at::Tensor Norm(const LayerContext& context, const at::Tensor& x_BTD, const at::Tensor& w_D,
                at::ScalarType dtype) {
  return ops::RmsNorm(x_BTD, w_D, context.config.rms_norm_eps).to(dtype);
}

double AttentionScale(const LayerContext& context) {
  return 1.0 / std::sqrt(static_cast<double>(context.config.head_dim));
}

// Seen as tokens x anything; the inverse of view([B, T, ...]).
at::Tensor Flat(const at::Tensor& x_BTC) { return x_BTC.reshape({-1, x_BTC.size(-1)}); }
at::Tensor FlatHeads(const at::Tensor& x_BTHK) {
  return x_BTHK.reshape({-1, x_BTHK.size(2) * x_BTHK.size(3)});
}

// Queries, keys and values of xn_BTD, the normalised input.
ops::Qkv ProjectQkv(const LayerContext& context, const LayerWeights& weights,
                    const at::Tensor& xn_BTD) {
  const auto qkv_TC =
      ops::LinearEach(Flat(xn_BTD), {weights.q_HKxD, weights.k_GKxD, weights.v_GKxD});
  const auto heads = [&](const at::Tensor& x_TC) {
    return x_TC.view({xn_BTD.size(0), xn_BTD.size(1), -1, context.config.head_dim});
  };
  ops::Qkv qkv{heads(qkv_TC[0]), heads(qkv_TC[1]), heads(qkv_TC[2])};
  ops::ApplyRope(qkv.q_BTHK, context.rope, /*inverse=*/false);
  ops::ApplyRope(qkv.k_BTGK, context.rope, /*inverse=*/false);
  return qkv;
}

// h = x + o(attention): cheap enough to do again in backward instead of being kept.
at::Tensor AddAttention(const LayerContext& context, const LayerWeights& weights,
                        const at::Tensor& x_BTD, const at::Tensor& attention_BTHK) {
  const at::Tensor branch_TD = ops::Linear(FlatHeads(attention_BTHK), weights.o_DxHK);
  return x_BTD + ops::SumOverRanks(context.options.tp, branch_TD).view(x_BTD.sizes());
}

// Gradient of norm(x) -> dx plus the residual gradient dy_BTD. dxn_TD is this rank's part.
at::Tensor AddNormBackward(const LayerContext& context, const at::Tensor& dxn_TD,
                           const at::Tensor& x_BTD, const at::Tensor& w_D, const at::Tensor& dy_BTD,
                           at::Tensor& dw_D) {
  const at::Tensor whole_BTD =
      ops::SumOverRanks(context.options.tp, dxn_TD).to(x_BTD.scalar_type()).view(x_BTD.sizes());
  return ops::RmsNormBackward(whole_BTD, x_BTD, w_D, context.config.rms_norm_eps, dw_D)
      .add_(dy_BTD);
}

at::Tensor FeedForwardBranchBackward(const LayerContext& context, const LayerWeights& weights,
                                     const at::Tensor& h_BTD, ops::FeedForwardSaved saved,
                                     const at::Tensor& dy_BTD, LayerGradients& gradients) {
  // The normalised input is computed again: a pass over T x D costs less than keeping it.
  const at::ScalarType dtype = weights.o_DxHK.dtype();
  const at::Tensor hn_TD = Flat(Norm(context, h_BTD, weights.ffn_norm_D, dtype));
  const at::Tensor dhn_TD =
      ops::FeedForwardBackward(Flat(dy_BTD).to(dtype), hn_TD, weights.ffn,
                               context.options.ffn_slice_tokens, gradients.ffn, std::move(saved));
  return AddNormBackward(context, dhn_TD, h_BTD, weights.ffn_norm_D, dy_BTD, gradients.ffn_norm_D);
}

at::Tensor AttentionBranchBackward(const LayerContext& context, const LayerWeights& weights,
                                   const ops::RingAttention& ring, const LayerSaved& saved,
                                   const at::Tensor& dh_BTD, LayerGradients& gradients) {
  const at::ScalarType dtype = weights.o_DxHK.dtype();
  const at::Tensor datt_TxHK =
      ops::LinearBackward(Flat(dh_BTD).to(dtype), FlatHeads(saved.attention.out_BTHK),
                          weights.o_DxHK, gradients.o_DxHK);
  const at::Tensor xn_BTD = Norm(context, saved.x_BTD, weights.attention_norm_D, dtype);
  const at::Tensor xn_TD = Flat(xn_BTD);
  const ops::Qkv qkv = saved.keep_all ? saved.qkv : ProjectQkv(context, weights, xn_BTD);
  ops::AttentionGradients d = ring.Backward(datt_TxHK.view(qkv.q_BTHK.sizes()), qkv,
                                            saved.attention, AttentionScale(context));
  // The transpose of a rotation is the inverse rotation.
  ops::ApplyRope(d.dq_BTHK, context.rope, /*inverse=*/true);
  ops::ApplyRope(d.dk_BTGK, context.rope, /*inverse=*/true);
  // The three projections share their input: its gradient is the sum of theirs.
  at::Tensor dxn_TD =
      ops::LinearBackward(FlatHeads(d.dq_BTHK), xn_TD, weights.q_HKxD, gradients.q_HKxD);
  dxn_TD += ops::LinearBackward(FlatHeads(d.dk_BTGK), xn_TD, weights.k_GKxD, gradients.k_GKxD);
  dxn_TD += ops::LinearBackward(FlatHeads(d.dv_BTGK), xn_TD, weights.v_GKxD, gradients.v_GKxD);
  return AddNormBackward(context, dxn_TD, saved.x_BTD, weights.attention_norm_D, dh_BTD,
                         gradients.attention_norm_D);
}

}  // namespace

int64_t ActivationBytes(const config::ModelConfig& config, int64_t tokens, int64_t tp,
                        int64_t element_bytes, int64_t residual_bytes) {
  const int64_t heads = config.num_attention_heads + 2 * config.num_key_value_heads;
  const int64_t split = heads * config.head_dim + 2 * config.intermediate_size;
  return tokens * (element_bytes * split / tp + residual_bytes * config.hidden_size);
}

at::Tensor LayerForward(const LayerContext& context, const LayerWeights& weights,
                        const at::Tensor& x_BTD, const Attend& attend, LayerSaved* saved) {
  const at::ScalarType dtype = weights.o_DxHK.dtype();
  // Statements of their own: the normalised input is freed before attention, q, k and v after it.
  ops::Qkv qkv =
      ProjectQkv(context, weights, Norm(context, x_BTD, weights.attention_norm_D, dtype));
  const bool keep_all = saved && saved->keep_all;
  const ops::AttentionResult attention = attend(qkv, AttentionScale(context));
  // References, not copies: the tensors live on until the backward pass of this layer.
  if (saved) saved->x_BTD = x_BTD, saved->attention = attention;
  if (keep_all) saved->qkv = qkv;
  qkv = {};
  const at::Tensor h_BTD = AddAttention(context, weights, x_BTD, attention.out_BTHK);
  if (keep_all) saved->h_BTD = h_BTD;
  const at::Tensor ffn_TD =
      ops::FeedForward(Flat(Norm(context, h_BTD, weights.ffn_norm_D, dtype)), weights.ffn,
                       context.options.ffn_slice_tokens, keep_all ? &saved->ffn : nullptr);
  // With tp, q, k, v, gate and up are split by rows, o and down by columns, so each branch needs
  // one sum over ranks (Shoeybi et al. 2019, section 3).
  return h_BTD + ops::SumOverRanks(context.options.tp, ffn_TD).view(h_BTD.sizes());
}

at::Tensor LayerBackward(const LayerContext& context, const LayerWeights& weights,
                         const ops::RingAttention& ring, LayerSaved saved, const at::Tensor& dy_BTD,
                         LayerGradients& gradients) {
  at::Tensor h_BTD = saved.keep_all
                         ? std::exchange(saved.h_BTD, {})
                         : AddAttention(context, weights, saved.x_BTD, saved.attention.out_BTHK);
  const at::Tensor dh_BTD = FeedForwardBranchBackward(
      context, weights, h_BTD, std::exchange(saved.ffn, {}), dy_BTD, gradients);
  h_BTD.reset();
  return AttentionBranchBackward(context, weights, ring, saved, dh_BTD, gradients);
}

}  // namespace lwm::model
