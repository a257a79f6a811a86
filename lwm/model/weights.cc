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

void TieHead(const config::ModelConfig& config, NonLayerWeights& outer) {
  if (config.tie_word_embeddings) outer.head_VD = outer.embed_VD;
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

std::vector<at::Tensor*> OuterTensors(const config::ModelConfig& config, NonLayerWeights& weights) {
  std::vector<at::Tensor*> tensors = {&weights.embed_VD};
  if (config.has_vision()) tensors.push_back(&weights.vision_embed_VD);
  tensors.push_back(&weights.norm_D);
  if (!config.tie_word_embeddings) tensors.push_back(&weights.head_VD);
  if (config.has_vision()) tensors.push_back(&weights.vision_head_VD);
  return tensors;
}

std::vector<at::Tensor*> LayerTensors(LayerWeights& weights) {
  return {&weights.attention_norm_D, &weights.q_HKxD,    &weights.k_GKxD,
          &weights.v_GKxD,           &weights.o_DxHK,    &weights.ffn_norm_D,
          &weights.ffn.gate_FD,      &weights.ffn.up_FD, &weights.ffn.down_DF};
}

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
  TieHead(config_, outer_);
}

void ResidentWeights::Visit(
    const std::function<void(const TensorSpec&, at::Tensor&, at::Tensor&)>& visit) {
  VisitGroup(NonLayerTensorSpecs(config_), OuterTensors(config_, outer_),
             OuterTensors(config_, outer_gradients_), visit);
  for (size_t l = 0; l < layers_.size(); ++l)
    VisitGroup(LayerTensorSpecs(config_, static_cast<int64_t>(l)), LayerTensors(layers_[l]),
               LayerTensors(layer_gradients_[l]), visit);
}

void ResidentWeights::EnableGradients() {
  Visit([](const TensorSpec& spec, at::Tensor&, at::Tensor& gradient) {
    gradient = at::zeros(spec.shape, at::kFloat);
  });
  TieHead(config_, outer_gradients_);
}

}  // namespace lwm::model
