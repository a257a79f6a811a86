#include "lwm/model/weights.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"

namespace lwm::model {
namespace {

using Split = TensorSpec::Split;

// visit(spec, weight, gradient) for matching lists.
void VisitGroup(const std::vector<TensorSpec>& specs, const std::vector<at::Tensor*>& weights,
                const std::vector<at::Tensor*>& gradients,
                const std::function<void(const TensorSpec&, at::Tensor&, at::Tensor&)>& visit) {
  for (size_t i = 0; i < specs.size(); ++i) visit(specs[i], *weights[i], *gradients[i]);
}

at::Tensor* Dense(at::Tensor& matrix) { return &matrix; }
at::Tensor* Dense(ops::LinearWeight& weight) { return &weight.dense(); }

template <class Matrix>
std::vector<at::Tensor*> Tensors(const config::ModelConfig& config, NonLayerOf<Matrix>& of) {
  std::vector<at::Tensor*> tensors = {&of.embed_VD};
  if (config.has_vision()) tensors.push_back(&of.vision_embed_VD);
  tensors.push_back(&of.norm_D);
  if (!config.tie_word_embeddings) tensors.push_back(Dense(of.head_VD));
  if (config.has_vision()) tensors.push_back(Dense(of.vision_head_VD));
  return tensors;
}

template <class Matrix>
std::vector<at::Tensor*> Tensors(LayerOf<Matrix>& of) {
  return {&of.attention_norm_D,  Dense(of.q_HKxD),    Dense(of.k_GKxD),
          Dense(of.v_GKxD),      Dense(of.o_DxHK),    &of.ffn_norm_D,
          Dense(of.ffn.gate_FD), Dense(of.ffn.up_FD), Dense(of.ffn.down_DF)};
}

}  // namespace

std::vector<TensorSpec> NonLayerTensorSpecs(const config::ModelConfig& config) {
  const int64_t dim = config.hidden_size;
  std::vector<TensorSpec> specs = {{"model.embed_tokens.weight", {config.vocab_size, dim}}};
  if (config.has_vision())
    specs.push_back({"model.vision_embed_tokens.weight", {config.vision_vocab_size, dim}});
  specs.push_back({"model.norm.weight", {dim}});
  if (!config.tie_word_embeddings) specs.push_back({"lm_head.weight", {config.vocab_size, dim}});
  if (config.has_vision()) specs.push_back({"vision_head.weight", {config.vision_vocab_size, dim}});
  return specs;
}

std::vector<TensorSpec> LayerTensorSpecs(const config::ModelConfig& config, int64_t layer) {
  const int64_t dim = config.hidden_size, ffn = config.intermediate_size;
  const int64_t q_rows = config.num_attention_heads * config.head_dim;
  const int64_t kv_rows = config.num_key_value_heads * config.head_dim;
  const std::string prefix = Cat("model.layers.", layer, ".");
  return {{prefix + "input_layernorm.weight", {dim}},
          {prefix + "self_attn.q_proj.weight", {q_rows, dim}, Split::kRows},
          {prefix + "self_attn.k_proj.weight", {kv_rows, dim}, Split::kRows},
          {prefix + "self_attn.v_proj.weight", {kv_rows, dim}, Split::kRows},
          {prefix + "self_attn.o_proj.weight", {dim, q_rows}, Split::kCols},
          {prefix + "post_attention_layernorm.weight", {dim}},
          {prefix + "mlp.gate_proj.weight", {ffn, dim}, Split::kRows},
          {prefix + "mlp.up_proj.weight", {ffn, dim}, Split::kRows},
          {prefix + "mlp.down_proj.weight", {dim, ffn}, Split::kCols}};
}

std::vector<at::Tensor*> TensorsOf(const config::ModelConfig& config, NonLayerWeights& weights) {
  return Tensors(config, weights);
}
std::vector<at::Tensor*> TensorsOf(const config::ModelConfig& config,
                                   NonLayerGradients& gradients) {
  return Tensors(config, gradients);
}
std::vector<at::Tensor*> TensorsOf(LayerWeights& weights) { return Tensors(weights); }
std::vector<at::Tensor*> TensorsOf(LayerGradients& gradients) { return Tensors(gradients); }

LayerHandle::LayerHandle(const WeightReader& reader, int64_t layer)
    : reader_(reader), layer_(layer), weights_(reader.AcquireLayer(layer)) {}

LayerHandle::~LayerHandle() { reader_.ReleaseLayer(layer_); }

ResidentWeights::ResidentWeights(const config::ModelConfig& config, at::ScalarType dtype)
    : config_(config),
      dtype_(dtype),
      layers_(static_cast<size_t>(config.num_hidden_layers)),
      layer_gradients_(layers_.size()) {}

void ResidentWeights::Load(const std::function<at::Tensor(const TensorSpec&)>& read) {
  Visit([&](const TensorSpec& spec, at::Tensor& weight, at::Tensor&) {
    const at::Tensor whole = read(spec);
    LWM_CHECK(whole.sizes() == at::IntArrayRef(spec.shape), spec.name, ": read ", whole.sizes());
    weight = whole.to(dtype_, /*non_blocking=*/false, /*copy=*/true).contiguous();
  });
  if (config_.tie_word_embeddings) non_layer_.head_VD = non_layer_.embed_VD;
}

void ResidentWeights::Visit(
    const std::function<void(const TensorSpec&, at::Tensor&, at::Tensor&)>& visit) {
  VisitGroup(NonLayerTensorSpecs(config_), TensorsOf(config_, non_layer_),
             TensorsOf(config_, non_layer_gradients_), visit);
  for (size_t l = 0; l < layers_.size(); ++l)
    VisitGroup(LayerTensorSpecs(config_, static_cast<int64_t>(l)), TensorsOf(layers_[l]),
               TensorsOf(layer_gradients_[l]), visit);
}

void ResidentWeights::EnableGradients() {
  Visit([](const TensorSpec& spec, at::Tensor&, at::Tensor& gradient) {
    gradient = at::zeros(spec.shape, at::kFloat);
  });
  if (config_.tie_word_embeddings) non_layer_gradients_.head_VD = non_layer_gradients_.embed_VD;
}

}  // namespace lwm::model
