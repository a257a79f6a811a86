#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "lwm/model/decoder.h"
#include "lwm/model/weights.h"
#include "lwm/ops/attention/ring_attention.h"
#include "lwm/ops/rope.h"

namespace lwm::model {

// Inputs that all layers of one pass share.
struct LayerContext {
  const config::ModelConfig& config;
  const DecoderOptions& options;
  ops::RopeTable rope;
};

// The new tokens' queries, keys and values of one layer; queries and keys are rotated.
struct Qkv {
  at::Tensor q_BTHK, k_BTGK, v_BTGK;
};

// Attention of the queries over the keys that they may see. It alone knows where those are: on the
// ranks of a ring (decoder.h) or, with the keys of earlier tokens, in a cache
// (infer/decode_model.h).
using Attend = std::function<ops::AttentionResult(const Qkv& qkv, double scale)>;

// A layer's saved values for its backward pass: its input and attention's result, so that
// attention's forward never runs twice (at 1M tokens it is most of the work).
struct LayerSaved {
  at::Tensor x_BTD;  // residual dtype
  ops::AttentionResult attention;
};

// y = h + FFN(norm(h)), h = x + Attention(norm(x)): a pre-norm LLaMA block (Touvron et al. 2023).
// x_BTD and the result are in the residual dtype, matmuls in the weights' dtype. `saved` may be
// null. With tp ranks each holds a part of the heads and of F; the two branch outputs are summed.
at::Tensor LayerForward(const LayerContext& context, const LayerWeights& weights,
                        const at::Tensor& x_BTD, const Attend& attend, LayerSaved* saved);

// For attention over the ring of `view`: recomputes everything but attention's forward; returns
// dx_BTD (residual dtype) and adds to the f32 gradients, which are complete on every tp rank.
at::Tensor LayerBackward(const LayerContext& context, const LayerWeights& weights,
                         const ops::SequenceView& view, const LayerSaved& saved,
                         const at::Tensor& dy_BTD, LayerWeights& gradients);

}  // namespace lwm::model
