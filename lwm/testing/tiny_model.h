#pragma once

#include <ATen/ATen.h>

#include "lwm/config/model_config.h"
#include "lwm/model/weights.h"

namespace lwm::testing_support {

// A small decoder with grouped query heads; tests that need other sizes change them.
inline config::ModelConfig TinyConfig(int64_t vision_vocab_size = 0) {
  config::ModelConfig config;
  config.vocab_size = 61;
  config.vision_vocab_size = vision_vocab_size;
  config.hidden_size = 24;
  config.intermediate_size = 40;
  config.num_hidden_layers = 3;
  config.num_attention_heads = 4;
  config.num_key_value_heads = 2;
  config.head_dim = 8;
  config.max_position_embeddings = 2048;
  return config;
}

inline model::ResidentWeights TinyWeights(const config::ModelConfig& config,
                                          at::ScalarType dtype = at::kFloat) {
  at::manual_seed(11);
  model::ResidentWeights weights(config, dtype);
  weights.Load([](const model::TensorSpec& spec) {
    return spec.shape.size() == 1 ? at::rand(spec.shape) + 0.5 : at::randn(spec.shape) * 0.2;
  });
  return weights;
}

}  // namespace lwm::testing_support
