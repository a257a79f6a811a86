#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/model/decoder.h"
#include "lwm/model/weights.h"
#include "lwm/ops/ring_attention.h"
#include "lwm/ops/rope.h"

namespace lwm::model {

// Inputs that all layers of one pass share.
struct LayerContext {
  const config::ModelConfig& config;
  const DecoderOptions& options;
  const ops::SequenceView& view;
  ops::RopeTable rope;
};

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
                        const at::Tensor& x_BTD, LayerSaved* saved);

// Recomputes everything but attention's forward; returns dx_BTD (residual dtype) and adds to the
// f32 gradients, which are complete on every tp rank.
at::Tensor LayerBackward(const LayerContext& context, const LayerWeights& weights,
                         const LayerSaved& saved, const at::Tensor& dy_BTD,
                         LayerWeights& gradients);

}  // namespace lwm::model
