#pragma once

#include <cstdint>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/loader.h"
#include "lwm/train/step.h"

namespace lwm::train {

// Mean -log p of the targets whose token stands at positions [end / 2, end) of its document (the
// first bucket: [0, 1024)).
struct PositionBucket {
  int64_t end = 0;
  int64_t tokens = 0;
  double loss = 0;
};

struct Evaluation {
  Losses losses;          // as in training
  int64_t tokens = 0;     // targets
  double token_loss = 0;  // mean over targets, all the same weight
  std::vector<PositionBucket> buckets;
};

// {"step", "loss", "text_loss", "vision_loss", "token_loss", "perplexity", "tokens", "buckets"}.
Json ToJson(const Evaluation& evaluation, int64_t step);

// Loss of at most max_rows rows of `rows`, dealt to the data ranks in turn; every rank must pass
// the same rows. No gradients. The same result on every rank; collective over the mesh.
Evaluation Evaluate(ShardedWeights& weights, data::RowSequence& rows, int64_t max_rows,
                    const StepOptions& options);

}  // namespace lwm::train
