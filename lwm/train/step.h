#pragma once

#include <cstdint>

#include "lwm/model/decoder.h"
#include "lwm/train/adamw.h"
#include "lwm/train/global_batch.h"
#include "lwm/train/sharded_weights.h"

namespace lwm::train {

struct Losses {
  double loss = 0;  // text, or 0.5 * (text + vision) for a model with vision
  double text_loss = 0, vision_loss = 0;
};

struct StepOptions {
  model::DecoderOptions decoder;  // tp is taken from the mesh
  int64_t micro_rows = 1;         // rows of one forward and backward pass
};

// Adds share * d(loss of the batch) to the weights' gradients, in micro-batches. The batch's loss
// is the sum of weighted token losses of all ranks / batch.examples, whatever the mesh and
// micro_rows. Returns the loss of the whole batch, the same on every rank. Collective over the
// mesh.
Losses AccumulateGradients(ShardedWeights& weights, const GlobalBatch& batch, double share,
                           const StepOptions& options);

// Sums the gradients of all ranks, clips their global norm to clip_norm (0: never) and updates the
// weights. Returns the norm before clipping. Throws Error(kInternal) when it is not finite; masters
// and moments are then as they were. Collective over the mesh.
double ApplyUpdate(ShardedWeights& weights, AdamW& optimizer, double lr, double clip_norm);

}  // namespace lwm::train
