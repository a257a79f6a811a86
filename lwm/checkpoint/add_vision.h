#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>

#include "lwm/config/model_config.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {

// The config with a vision table and head of `vision_vocab_size` codes. Throws
// Error(kInvalidArgument) when it has them already.
config::ModelConfig WithVision(config::ModelConfig config, int64_t vision_vocab_size);

// Reads a text model as a vision model: the vision table and head are drawn from
// normal(0, config.initializer_range) in f32, a pure function of seed and name; the rest comes from
// `read`.
std::function<at::Tensor(const model::TensorSpec&)> ReadWithVision(
    const config::ModelConfig& config, std::function<at::Tensor(const model::TensorSpec&)> read,
    uint64_t seed);

}  // namespace lwm::checkpoint
