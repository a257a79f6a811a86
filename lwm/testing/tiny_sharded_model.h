#pragma once

#include <ATen/ATen.h>

#include "lwm/config/model_config.h"
#include "lwm/testing/tiny_model.h"
#include "lwm/train/sharded_weights.h"

namespace lwm::train::testing {

// A decoder of a few hundred weights, with sizes that are no multiple of anything but four heads.
inline config::ModelConfig TinyModel(int64_t layers = 2, bool vision = true, bool tied = false) {
  config::ModelConfig config = testing_support::TinyConfig(vision ? 7 : 0);
  config.vocab_size = 11;
  config.hidden_size = 10;
  config.intermediate_size = 12;
  config.num_hidden_layers = layers;
  config.num_key_value_heads = 4;
  config.head_dim = 2;
  config.max_position_embeddings = 64;
  config.tie_word_embeddings = tied;
  return config;
}

// The mesh of one rank on its own.
struct Alone {
  Alone() : self(dist::MakeSelfCommunicator()), mesh(*self, {}) {}
  std::unique_ptr<dist::Communicator> self;
  dist::Mesh mesh;
};

// Whole tensors drawn as InitRandom does, by one rank on its own, norms included.
class WholeModel {
 public:
  WholeModel(const config::ModelConfig& config, uint64_t seed)
      : weights_(config, alone_.mesh, at::kFloat) {
    weights_.InitRandom({.seed = seed, .table_std = 1, .matrix_std = 1});
  }

  at::Tensor operator()(const model::TensorSpec& spec) {
    at::Tensor found;
    weights_.VisitWhole([&](const model::TensorSpec& other, const at::Tensor& whole) {
      if (other.name == spec.name) found = whole.clone();
    });
    return found;
  }

 private:
  Alone alone_;
  ShardedWeights weights_;
};

// The values of `piece`, from the whole f32 tensor.
inline at::Tensor SliceOf(const at::Tensor& whole, const ShardPiece& piece) {
  const at::Tensor slice = at::empty({piece.slice.size()}, at::kFloat);
  CopyOverlap(WholeSlice(piece.spec), whole.const_data_ptr<float>(), piece.slice,
              slice.mutable_data_ptr<float>());
  return slice;
}

}  // namespace lwm::train::testing
