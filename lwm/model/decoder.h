#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/config/model_config.h"
#include "lwm/model/weights.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::model {

// This rank's part of a batch of B rows: T slots of every row.
struct DecoderInput {
  at::Tensor id_BT;        // i64
  at::Tensor vision_BT;    // bool, token is a vision code; undefined = all text
  at::Tensor position_BT;  // i32, restarts in every segment
  ops::SequenceView view;
};

struct DecoderTargets {
  at::Tensor id_BT;      // i64, kNoTarget = none
  at::Tensor vision_BT;  // bool, the target is a vision code; undefined = all text
  at::Tensor weight_BT;  // f32, weight of the token's loss
};

// Choices that change speed and memory, never the result beyond rounding.
struct DecoderOptions {
  at::ScalarType residual_dtype =
      at::kBFloat16;  // of the stream between layers; f32 when weights are
  int64_t ffn_slice_tokens = 2048;
  // Memory for activations that backward then need not compute again: as many of the last layers as
  // fit keep all of theirs (ActivationBytes in layer.h).
  int64_t keep_bytes = 0;
  dist::Communicator* tp = nullptr;  // ranks that share heads and F; nullptr = one
};

struct DecoderLoss {
  double text_loss = 0;    // this rank's sum of weight * -log p over text targets
  double vision_loss = 0;  // same over vision targets
  at::Tensor nll_BT;       // f32, -log p of each target, 0 where there is none
};

// Final hidden states (after the last norm), [B,T,D] in the residual dtype.
at::Tensor DecoderHidden(const config::ModelConfig& config, const WeightReader& weights,
                         const DecoderInput& input, const DecoderOptions& options);

// Loss of this rank's tokens, no gradients.
DecoderLoss DecoderForward(const config::ModelConfig& config, const WeightReader& weights,
                           const DecoderInput& input, const DecoderTargets& targets,
                           const DecoderOptions& options);

// Loss, and gradients of text_scale * text_loss + vision_scale * vision_loss added to the store's.
// Every layer keeps its input, attention output and lse, so that attention's forward runs once;
// the rest is computed again, but for the layers that options.keep_bytes has room for.
DecoderLoss DecoderForwardBackward(const config::ModelConfig& config, WeightStore& weights,
                                   const DecoderInput& input, const DecoderTargets& targets,
                                   double text_scale, double vision_scale,
                                   const DecoderOptions& options);

}  // namespace lwm::model
