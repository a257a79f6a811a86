#pragma once

#include <array>
#include <vector>

#include "lwm/train/flat_layout.h"

namespace lwm::train {

// Moves gradients to the shards: added in place when this rank owns everything, else a layer's are
// reduce-scattered while the next one is computed. See ShardedWeights.
class GradientScatter {
 public:
  GradientScatter(const config::ModelConfig& config, dist::Communicator& shard_ranks,
                  std::vector<GroupShard>& shards, const std::vector<FlatLayout>& layouts);

  model::NonLayerGradients& NonLayer();
  model::LayerGradients& Layer(int64_t layer);
  void Finish(int64_t layer);
  // The outer group's too; after it the shards hold the sums over the shard ranks.
  void FinishAll();

 private:
  struct Buffer {
    at::Tensor flat, received_n;
    model::LayerGradients gradients;
    int64_t layer = -1;
    bool in_flight = false;
    int64_t started = 0;
    dist::Request request;  // last: waits before the buffers go
  };

  bool resident() const { return ranks_.size() == 1; }
  dist::Request StartScatter(const at::Tensor& flat, const at::Tensor& received_n);
  void Complete(Buffer& buffer);
  Buffer& Filling(int64_t layer);

  const config::ModelConfig& config_;
  dist::Communicator& ranks_;
  std::vector<GroupShard>& shards_;
  const std::vector<FlatLayout>& layouts_;
  model::NonLayerGradients non_layer_;
  at::Tensor non_layer_flat_;
  std::vector<model::LayerGradients> resident_;
  std::array<Buffer, 2> buffers_;
  int64_t clock_ = 0;
};

}  // namespace lwm::train
