#pragma once

#include <cstdint>
#include <memory>
#include <vector>

#include "lwm/train/flat_layout.h"

namespace lwm::train {

// The compute copies of sharded weights: resident when this rank owns everything, else gathered one
// layer ahead of use. See ShardedWeights.
class WeightGather {
 public:
  // shards[g] and layouts[g] belong together, 0 is the outer group. All must outlive this.
  WeightGather(const config::ModelConfig& config, dist::Communicator& shard_ranks,
               const std::vector<GroupShard>& shards, const std::vector<FlatLayout>& layouts);

  const model::NonLayerWeights& NonLayer();
  const model::LayerWeights& Layer(int64_t layer);
  void Release(int64_t layer);
  // Waits for gathers under way: after it the masters may be changed.
  void WaitForAll();
  // After compute weights were changed: drops gathered copies.
  void Forget();

 private:
  // One gathered layer.
  struct Slot {
    at::Tensor flat;
    model::LayerWeights weights;
    int64_t layer = -1;  // the one it holds or is being filled with; -1 = none
    int in_use = 0;      // handles
    int64_t last_use = 0;
    dist::Request request;  // last: waits before flat goes
  };

  bool resident() const { return ranks_.size() == 1; }
  const at::Tensor& compute(int64_t group) const {
    return shards_[static_cast<size_t>(group)].compute_n;
  }
  dist::Request StartGather(int64_t group, const at::Tensor& flat);
  Slot* Find(int64_t layer);
  // A slot that may be overwritten; nullptr when as many layers as allowed are in use.
  Slot* FreeSlot();
  Slot* Start(int64_t layer);
  int64_t NextLayer(int64_t layer);

  const config::ModelConfig& config_;
  dist::Communicator& ranks_;
  const std::vector<GroupShard>& shards_;
  const std::vector<FlatLayout>& layouts_;
  model::NonLayerWeights non_layer_;
  at::Tensor non_layer_flat_;
  bool non_layer_fresh_ = false;
  std::vector<model::LayerWeights> resident_;
  std::vector<std::unique_ptr<Slot>> slots_;
  int64_t last_layer_ = -1, direction_ = 1, clock_ = 0;
};

}  // namespace lwm::train
