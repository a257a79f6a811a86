#pragma once

#include <ATen/core/Tensor.h>

#include <functional>
#include <string>
#include <vector>

#include "lwm/config/model_config.h"
#include "lwm/ops/feed_forward.h"
#include "lwm/ops/linear_weight.h"

namespace lwm::model {

// The weights of one layer, or their gradients. HK = H*K, GK = G*K rows.
template <class Matrix>
struct LayerOf {
  at::Tensor attention_norm_D;
  Matrix q_HKxD, k_GKxD, v_GKxD, o_DxHK;
  at::Tensor ffn_norm_D;
  ops::FeedForwardOf<Matrix> ffn;
};
using LayerWeights = LayerOf<ops::LinearWeight>;
using LayerGradients = LayerOf<at::Tensor>;  // f32, summed over micro-batches

// Those outside the layers. With tied embeddings the head shares the memory of embed_VD.
template <class Matrix>
struct NonLayerOf {
  at::Tensor embed_VD;
  at::Tensor vision_embed_VD;  // undefined without vision
  at::Tensor norm_D;
  Matrix head_VD;
  Matrix vision_head_VD;  // undefined without vision
};
using NonLayerWeights = NonLayerOf<ops::LinearWeight>;
using NonLayerGradients = NonLayerOf<at::Tensor>;

struct TensorSpec {
  std::string name;            // Hugging Face name, "model.layers.3.mlp.up_proj.weight"
  std::vector<int64_t> shape;  // of the whole tensor
  enum class Split { kNone, kRows, kCols } tensor_parallel_split = Split::kNone;
};

// Every weight of the model in file order. Group -1 is that outside the layers, l layer l's.
std::vector<TensorSpec> NonLayerTensorSpecs(const config::ModelConfig& config);
std::vector<TensorSpec> LayerTensorSpecs(const config::ModelConfig& config, int64_t layer);

// Pointers to the members' tensors in the order of the specs, so that loops over tensors by name
// and code that reads like the paper use one list.
std::vector<at::Tensor*> TensorsOf(const config::ModelConfig& config, NonLayerWeights& weights);
std::vector<at::Tensor*> TensorsOf(const config::ModelConfig& config, NonLayerGradients& gradients);
std::vector<at::Tensor*> TensorsOf(LayerWeights& weights);
std::vector<at::Tensor*> TensorsOf(LayerGradients& gradients);

class WeightReader;

// A layer's weights in use; they are valid as long as this lives, and given back after it.
class LayerHandle {
 public:
  LayerHandle(const WeightReader& reader, int64_t layer);
  ~LayerHandle();
  LayerHandle(const LayerHandle&) = delete;
  LayerHandle& operator=(const LayerHandle&) = delete;

  const LayerWeights& operator*() const { return weights_; }
  const LayerWeights* operator->() const { return &weights_; }

 private:
  const WeightReader& reader_;
  int64_t layer_;
  const LayerWeights& weights_;
};

// A model's weights, ready to compute with, in compute dtype. In memory: ResidentWeights. Sharded
// in training: train/sharded_weights.h. Any order of calls is right; layers in rising or falling
// order are fastest where they are gathered from other ranks, which then runs one layer ahead.
class WeightReader {
 public:
  virtual ~WeightReader() = default;
  virtual const NonLayerWeights& NonLayer() const = 0;
  LayerHandle Layer(int64_t layer) const { return {*this, layer}; }

 protected:
  friend class LayerHandle;
  virtual const LayerWeights& AcquireLayer(int64_t layer) const = 0;
  virtual void ReleaseLayer(int64_t layer) const = 0;
};

// Weights with a place for their gradients.
class WeightStore : public WeightReader {
 public:
  // f32 gradients to add to.
  virtual NonLayerGradients& GradientsOfNonLayer() = 0;
  virtual LayerGradients& GradientsOfLayer(int64_t layer) = 0;
  // A layer's are complete: the store may send them while the next layer is computed.
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
  const NonLayerWeights& NonLayer() const override { return non_layer_; }
  NonLayerGradients& GradientsOfNonLayer() override { return non_layer_gradients_; }
  LayerGradients& GradientsOfLayer(int64_t layer) override {
    return layer_gradients_[static_cast<size_t>(layer)];
  }
  void FinishLayerGradients(int64_t) override {}

 private:
  const LayerWeights& AcquireLayer(int64_t layer) const override {
    return layers_[static_cast<size_t>(layer)];
  }
  void ReleaseLayer(int64_t) const override {}

  config::ModelConfig config_;
  at::ScalarType dtype_;
  NonLayerWeights non_layer_;
  NonLayerGradients non_layer_gradients_;
  std::vector<LayerWeights> layers_;
  std::vector<LayerGradients> layer_gradients_;
};

}  // namespace lwm::model
