#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>

#include "lwm/checkpoint/weight_rules.h"
#include "lwm/config/model_config.h"
#include "lwm/io/tensor_source.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {

// A checkpoint of any format, seen as this program's model: its config, and each weight under its
// Hugging Face name and in Hugging Face layout ([out, in], rotary halves). Holds no weight data;
// reading is safe from many threads.
class ModelSource {
 public:
  // `config` must describe the source: every weight is there, nothing else but what may be ignored.
  // Throws Error(kCorruptData) naming the weight.
  ModelSource(const config::ModelConfig& config, std::unique_ptr<io::TensorSource> source);

  const config::ModelConfig& config() const { return config_; }
  const io::TensorSource& source() const { return *source_; }

  // The weight in its stored dtype (f32 for quantised blocks), contiguous. It may share the memory
  // of the mapped file and must not be written to. Throws Error(kCorruptData) naming the weight
  // when it is missing, its shape differs from spec.shape, it is not of a float type, or it holds
  // NaN or infinity.
  at::Tensor Read(const model::TensorSpec& spec) const;

 private:
  config::ModelConfig config_;
  std::shared_ptr<const io::TensorSource> source_;
  WeightRules rules_;
};

// Opens a checkpoint (io::OpenTensorSource; io::Unwrapped names) with the config of the first of:
// `config_json` if given; config.json in the folder or beside the file; what the format itself
// states (GGUF, llama2.c). Throws Error(kInvalidArgument) when none states the sizes: nothing is
// guessed; and naming the kind when it is an adapter, quantised by a method that is not read, or a
// VQGAN (checkpoint/foreign_weights.h).
std::unique_ptr<ModelSource> OpenModel(
    const std::filesystem::path& path,
    const std::optional<std::filesystem::path>& config_json = {});

}  // namespace lwm::checkpoint
