#pragma once

#include <optional>

#include "lwm/config/model_config.h"
#include "lwm/io/tensor_source.h"

namespace lwm::checkpoint {

// The config that a GGUF or llama2.c source states; nothing for other formats. Throws
// Error(kCorruptData) naming the key that is missing or not supported.
std::optional<config::ModelConfig> ConfigOfSource(const io::TensorSource& source);

}  // namespace lwm::checkpoint
