#include "lwm/checkpoint/add_vision.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include "lwm/base/error.h"
#include "lwm/base/random.h"

namespace lwm::checkpoint {

config::ModelConfig WithVision(config::ModelConfig config, int64_t vision_vocab_size) {
  LWM_REQUIRE(!config.has_vision(), "the model has a vision vocabulary of ",
              config.vision_vocab_size, " already; leave out --add-vision");
  config.vision_vocab_size = vision_vocab_size;
  config.Validate();
  return config;
}

std::function<at::Tensor(const model::TensorSpec&)> ReadWithVision(
    const config::ModelConfig& config, std::function<at::Tensor(const model::TensorSpec&)> read,
    uint64_t seed) {
  return [=, range = config.initializer_range](const model::TensorSpec& spec) {
    const bool table = spec.name == "model.vision_embed_tokens.weight";
    if (!table && spec.name != "vision_head.weight") return read(spec);
    // A stream for each tensor, so neither depends on the order of reading.
    auto generator = at::make_generator<at::CPUGeneratorImpl>(DeriveKey(seed, table ? 0 : 1));
    return at::normal(0.0, range, spec.shape, generator, at::TensorOptions(at::kFloat));
  };
}

}  // namespace lwm::checkpoint
