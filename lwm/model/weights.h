#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/ops/feed_forward.h"

namespace lwm::model {

// Weights (or f32 gradients, same struct) of one layer. HK = H*K, GK = G*K rows.
struct LayerWeights {
  at::Tensor attention_norm_D;
  at::Tensor q_HKxD, k_GKxD, v_GKxD, o_DxHK;
  at::Tensor ffn_norm_D;
  ops::FeedForwardWeights ffn;
};

// The weights outside the layers. With tied embeddings head_VD is the same tensor as embed_VD.
struct NonLayerWeights {
  at::Tensor embed_VD;
  at::Tensor vision_embed_VD;  // undefined without vision
  at::Tensor norm_D;
  at::Tensor head_VD;
  at::Tensor vision_head_VD;  // undefined without vision
};

struct TensorSpec {
  std::string name;            // Hugging Face name, "model.layers.3.mlp.up_proj.weight"
  std::vector<int64_t> shape;  // of the whole tensor
  enum class Split { kNone, kRows, kCols } tensor_parallel_split = Split::kNone;
};

// Every weight of the model in file order. Group -1 is the outer group, l the layer's.
std::vector<TensorSpec> NonLayerTensorSpecs(const config::ModelConfig& config);
std::vector<TensorSpec> LayerTensorSpecs(const config::ModelConfig& config, int64_t layer);

// Pointers to the struct's members in the order of the specs, so that loops over tensors by name
// and code that reads like the paper use one list.
std::vector<at::Tensor*> OuterTensors(const config::ModelConfig& config, NonLayerWeights& weights);
std::vector<at::Tensor*> LayerTensors(LayerWeights& weights);

// Source of a model's weights and sink of its gradients. One device: ResidentWeights. Sharded
// training: train/sharded_weights.h. Calls come in the order outer, layers 0..L-1 (forward), layers
// L-1..0 (backward), outer.
class WeightStore {
 public:
  virtual ~WeightStore() = default;
  // Ready to compute with, in compute dtype; valid until the layer's Release.
  virtual const NonLayerWeights& Outer() = 0;
  virtual const LayerWeights& Layer(int64_t layer) = 0;
  virtual void ReleaseLayer(int64_t layer) = 0;
  // f32 gradients to add to; FinishLayerGradients hands a layer's to the store.
  virtual NonLayerWeights& OuterGradients() = 0;
  virtual LayerWeights& LayerGradients(int64_t layer) = 0;
  virtual void FinishLayerGradients(int64_t layer) = 0;
};

// All weights in memory on this rank, in one dtype; gradients (if asked for) in f32.
class ResidentWeights final : public WeightStore {
 public:
  ResidentWeights(const config::ModelConfig& config, at::ScalarType dtype);

  // Fills every tensor: `read` returns the whole tensor of that name in any float dtype; it is cast
  // to the store's. Throws on a wrong shape.
  void Load(const std::function<at::Tensor(const TensorSpec&)>& read);
  // Calls visit(spec, weight, gradient) for every tensor; gradient undefined without
  // EnableGradients.
  void Visit(const std::function<void(const TensorSpec&, at::Tensor&, at::Tensor&)>& visit);
  void EnableGradients();  // allocates zeros

  const config::ModelConfig& config() const { return config_; }
  const NonLayerWeights& Outer() override { return outer_; }
  const LayerWeights& Layer(int64_t layer) override { return layers_[static_cast<size_t>(layer)]; }
  void ReleaseLayer(int64_t) override {}
  NonLayerWeights& OuterGradients() override { return outer_gradients_; }
  LayerWeights& LayerGradients(int64_t layer) override {
    return layer_gradients_[static_cast<size_t>(layer)];
  }
  void FinishLayerGradients(int64_t) override {}

 private:
  config::ModelConfig config_;
  at::ScalarType dtype_;
  NonLayerWeights outer_, outer_gradients_;
  std::vector<LayerWeights> layers_, layer_gradients_;
};

}  // namespace lwm::model
