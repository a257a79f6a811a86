#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/model/weights.h"
#include "lwm/train/sharded_weights.h"

namespace lwm::train {

// Where the tensors of one group lie in one flat buffer that is cut into `ranks` equal shards.
// Every tensor starts at a multiple of 64 bytes in bf16 and f32; so does every shard.
class FlatLayout {
 public:
  // The tensors as tensor-parallel rank `tp_rank` of `tp_ranks` holds them.
  FlatLayout(const std::vector<model::TensorSpec>& specs, int tp_rank, int tp_ranks, int ranks);

  int64_t shard_size() const { return shard_size_; }
  int64_t size() const { return shard_size_ * ranks_; }
  // One view a tensor into flat (any dtype, size() elements), in the order of the specs.
  std::vector<at::Tensor> Views(const at::Tensor& flat) const;
  // The pieces of tensors in shard `rank`.
  std::vector<ShardPiece> Pieces(int rank) const;

 private:
  struct Place {
    model::TensorSpec spec;
    TensorSlice part;
    std::vector<int64_t> shape;
    int64_t offset;
  };
  std::vector<Place> places_;
  int ranks_;
  int64_t shard_size_;
};

// The struct whose members are views into the flat buffer; Layer is model::LayerWeights or
// LayerGradients, NonLayer the same outside the layers.
template <class Layer>
Layer ViewLayer(const FlatLayout& layout, const at::Tensor& flat);
template <class NonLayer>
NonLayer ViewNonLayer(const config::ModelConfig& config, const FlatLayout& layout,
                      const at::Tensor& flat);

}  // namespace lwm::train
