#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

#include "lwm/model/decoder.h"
#include "lwm/model/weights.h"
#include "lwm/ops/attention/ring_attention.h"
#include "lwm/ops/feed_forward.h"
#include "lwm/ops/rope.h"

namespace lwm::model {

// Inputs that all layers of one pass share.
struct LayerContext {
  const config::ModelConfig& config;
  const DecoderOptions& options;
  ops::RopeTable rope;
};

// Attention of the new tokens' queries, rotated like their keys, over the keys that they may see.
// It alone knows where those are: on the ranks of a ring (decoder.h) or, with the keys of earlier
// tokens, in a cache (infer/decode_model.h).
using Attend = std::function<ops::AttentionResult(const ops::Qkv& qkv, double scale)>;

// A layer's saved values for its backward pass: its input and attention's result, so that
// attention's forward never runs twice (at 1M tokens it is most of the work).
struct LayerSaved {
  bool keep_all = false;  // in: the members below too, else backward computes them again
  at::Tensor x_BTD;       // residual dtype
  ops::AttentionResult attention;

  ops::Qkv qkv;
  at::Tensor h_BTD;  // residual dtype
  ops::FeedForwardSaved ffn;
};

// Bytes that keep_all adds for T tokens: q, k, v, h, gate and up of one of `tp` ranks.
int64_t ActivationBytes(const config::ModelConfig& config, int64_t tokens, int64_t tp,
                        int64_t element_bytes, int64_t residual_bytes);

// y = h + FFN(norm(h)), h = x + Attention(norm(x)): a pre-norm LLaMA block (Touvron et al. 2023).
// x_BTD and the result are in the residual dtype, matmuls in the weights' dtype. `saved` may be
// null. With tp ranks each holds a part of the heads and of F; the two branch outputs are summed.
at::Tensor LayerForward(const LayerContext& context, const LayerWeights& weights,
                        const at::Tensor& x_BTD, const Attend& attend, LayerSaved* saved);

// For attention over `ring`: uses and frees `saved` and recomputes the rest, to the
// same bits; returns dx_BTD (residual dtype) and adds to the f32 gradients, which are complete on
// every tp rank.
at::Tensor LayerBackward(const LayerContext& context, const LayerWeights& weights,
                         const ops::RingAttention& ring, LayerSaved saved, const at::Tensor& dy_BTD,
                         LayerGradients& gradients);

}  // namespace lwm::model
