#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/dist/mesh.h"
#include "lwm/model/weights.h"
#include "lwm/train/tensor_slice.h"

namespace lwm::train {

// Part of a tensor inside a rank's flat shard.
struct ShardPiece {
  model::TensorSpec spec;
  TensorSlice slice;   // which elements of the tensor
  int64_t offset = 0;  // of the slice's first element in the shard
};

// One rank's shard of a group of tensors (group -1: the outer tensors, l: layer l): the group is
// flattened, padded and cut into equal parts over mesh.shard(). n values, f32; between
// pieces there is padding that stays 0.
struct GroupShard {
  at::Tensor master_n;
  at::Tensor compute_n;   // masters in compute dtype; f32: the masters themselves
  at::Tensor gradient_n;  // sum over all micro-batches and ranks after FinishGradients
  std::vector<ShardPiece> pieces;
};

// How random weights are drawn. Norms are 1.
struct InitOptions {
  uint64_t seed = 42;
  double table_std = 0.02;    // embeddings and heads
  double matrix_std = 0.02;   // matrices of the layers
  double residual_scale = 1;  // multiplies matrix_std for o_proj and down_proj
};

// The model's weights, sharded for training: f32 masters and gradients in flat buffers per group,
// cut over mesh.shard() (fsdp x sp), the same on every dp rank. mesh.tp() splits tensors as their
// specs say before they are flattened. Compute weights, norms too, are in `compute_dtype`.
//
// Several ranks in the shard group: a layer is gathered (all-gather of the cast shard) one layer
// ahead of its use in the direction of travel and its gradient is reduce-scattered one layer
// behind; two or three gathered layers are alive at a time, the outer group always. One rank: the
// compute copy is resident (f32: it is the master itself) and gradients are added in place.
//
// One optimizer step:
//   for each micro-batch: DecoderForwardBackward(config, weights, ...)
//   weights.FinishGradients();
//   const double norm = weights.GradientNorm();
//   optimizer.Step(lr, ClipFactor(norm, max_norm));   // uses up the gradients
//
// Bytes on this rank for each of its tp part's parameters, P = ranks of the shard group: 8 / P for
// masters and gradients (AdamW: 8 / P more), 2 / P for the bf16 copy. With P > 1 also, for the
// outer group and for two or three layers, gathered weights (2 in bf16) and, for the outer group
// and two layers, full gradients (4). Methods marked collective must be called by all ranks of the
// mesh in the same order; so must the WeightStore calls within a shard group.
class ShardedWeights final : public model::WeightStore {
 public:
  // Masters are 0. The mesh must outlive this. Throws Error(kInvalidArgument) when heads, kv heads
  // or the feed-forward width cannot be divided by the mesh's tp.
  ShardedWeights(const config::ModelConfig& config, dist::Mesh& mesh, at::ScalarType compute_dtype);
  ~ShardedWeights() override;

  // Normal values that depend only on (seed, tensor name, element), not on the mesh.
  void InitRandom(const InitOptions& options);
  // Fills the masters from whole tensors of any float dtype (a mapped file: only what this rank
  // owns is touched). A tensor for which `read` returns an undefined one keeps its value. Throws
  // Error(kCorruptData) on another shape and on values that are not finite.
  void Load(const std::function<at::Tensor(const model::TensorSpec&)>& read);

  // model::WeightStore.
  const model::NonLayerWeights& NonLayer() const override;
  model::NonLayerGradients& GradientsOfNonLayer() override;
  model::LayerGradients& GradientsOfLayer(int64_t layer) override;
  void FinishLayerGradients(int64_t layer) override;

  // After the last micro-batch of a step: hands over the outer group's gradients, waits for the
  // layers', sums over dp. Collective.
  void FinishGradients();
  // Square root of the sum of squares over the whole model, each weight once; f64, the same bits on
  // every rank and for any number of threads. NaN or Inf if a gradient is. Collective.
  double GradientNorm();
  void ZeroGradients();
  // After masters were changed from outside: casts them, and gathers again before the next use.
  void MastersChanged();
  // The same when compute_n was brought up to date too.
  void ComputeWeightsChanged();

  // Calls visit(spec, f32 whole tensor) for every tensor in file order on world rank 0, nowhere
  // else. Holds one group at a time. Collective.
  void VisitWhole(
      const std::function<void(const model::TensorSpec&, const at::Tensor& whole)>& visit);
  // The same for one group, on world rank `owner` (one of the ranks with dp_rank 0). Only the ranks
  // with dp_rank 0 take part; calls for several groups are made in the same order by all of them.
  void VisitGroup(int64_t group, int owner,
                  const std::function<void(const model::TensorSpec&, const at::Tensor&)>& visit);

  const config::ModelConfig& config() const { return config_; }
  dist::Mesh& mesh() { return mesh_; }
  int64_t first_group() const { return -1; }
  int64_t end_group() const { return config_.num_hidden_layers; }
  std::vector<model::TensorSpec> GroupSpecs(int64_t group) const;
  GroupShard& shard(int64_t group) { return shards_[static_cast<size_t>(group + 1)]; }

 private:
  const model::LayerWeights& AcquireLayer(int64_t layer) const override;
  void ReleaseLayer(int64_t layer) const override;

  struct Parts;  // layouts of the flat buffers, gathering and scattering

  config::ModelConfig config_;
  dist::Mesh& mesh_;
  std::vector<GroupShard> shards_;
  std::unique_ptr<Parts> parts_;
};

// The factor of gradients that brings their norm to at most max_norm; 1 when max_norm is 0.
double ClipFactor(double norm, double max_norm);

}  // namespace lwm::train
