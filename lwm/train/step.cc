#include "lwm/train/step.h"

#include <array>
#include <cmath>

#include "lwm/base/error.h"
#include "lwm/train/batch.h"

namespace lwm::train {

Losses AccumulateGradients(ShardedWeights& weights, const GlobalBatch& batch, double share,
                           const StepOptions& options) {
  dist::Mesh& mesh = weights.mesh();
  model::DecoderOptions decoder = options.decoder;
  decoder.tp = mesh.shape().tp > 1 ? &mesh.tp() : nullptr;
  const double modality_share = weights.config().has_vision() ? 0.5 : 1.0;
  // The divisor is known before the backward pass (GlobalBatch), so gradients come out as those of
  // the whole batch's loss and are only summed afterwards.
  const double scale = share * modality_share / static_cast<double>(batch.examples);
  std::array<double, 2> sums = {0, 0};
  const auto micro_rows = static_cast<size_t>(options.micro_rows);
  for (size_t first = 0; first < batch.rows.size(); first += micro_rows) {
    std::vector<const data::Row*> rows;
    for (size_t r = first; r < std::min(first + micro_rows, batch.rows.size()); ++r)
      rows.push_back(&batch.rows[r]);
    const Batch part = MakeBatch(rows, mesh.sp());
    const model::DecoderLoss loss = model::DecoderForwardBackward(
        weights.config(), weights, part.input, part.targets, scale, scale, decoder);
    sums[0] += loss.text_loss;
    sums[1] += loss.vision_loss;
  }
  mesh.data().AllReduceSum(std::span<double>(sums));
  Losses losses;
  losses.text_loss = sums[0] / static_cast<double>(batch.examples);
  losses.vision_loss = sums[1] / static_cast<double>(batch.examples);
  losses.loss = modality_share * (losses.text_loss + losses.vision_loss);
  return losses;
}

double ApplyUpdate(ShardedWeights& weights, AdamW& optimizer, double lr, double clip_norm) {
  weights.FinishGradients();
  const double norm = weights.GradientNorm();
  // Before the update, which would spoil masters and moments. The norm has the same bits on every
  // rank, so all of them throw.
  LWM_REQUIRE_AS(ErrorCode::kInternal, std::isfinite(norm), "the gradient's norm is ", norm,
                 ": training diverged; resume with a lower optimizer.lr or more warm-up");
  optimizer.Step(lr, ClipFactor(norm, clip_norm));
  return norm;
}

}  // namespace lwm::train
