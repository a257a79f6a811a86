#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "lwm/config/model_config.h"
#include "lwm/io/gguf_blocks.h"
#include "lwm/model/weights.h"

namespace lwm::checkpoint {

// All weights of a model directory (config.json with safetensors or pytorch_model files), or of any
// checkpoint that OpenModel reads, in `dtype`. Peak memory: the weights and one tensor.
// Throws as OpenModel and ModelSource::Read do, and Error(kResourceExhausted) before any work when
// the memory that is left does not hold the weights.
model::ResidentWeights LoadModel(const std::filesystem::path& path, at::ScalarType dtype);

struct SaveOptions {
  at::ScalarType dtype = at::kBFloat16;     // f32, bf16 or f16; rounded to nearest even
  std::optional<io::GgufType> blocks = {};  // Q8_0, Q4_0: instead of dtype, as in GGUF files
  int64_t max_shard_bytes = 5'000'000'000;  // as Hugging Face shards
  std::function<void(const std::filesystem::path&)> also = {};  // writes more files into the folder
};

// Writes a model directory in Hugging Face layout: config.json, and model.safetensors or shards
// with model.safetensors.index.json. `read` is called once per weight; memory is one weight. The
// folder appears whole or not at all. Throws Error(kInvalidArgument) when `folder` exists and is
// not empty, or when a weight does not fit f16; Error(kResourceExhausted) when the disk is full.
void SaveModelDirectory(const config::ModelConfig& config,
                        const std::function<at::Tensor(const model::TensorSpec&)>& read,
                        const std::filesystem::path& folder, const SaveOptions& options);

// Every weight in file order: the outer group, then layer by layer.
std::vector<model::TensorSpec> AllTensorSpecs(const config::ModelConfig& config);

// "float32", "bfloat16", "float16": the dtype's name in config.json.
std::string DtypeName(at::ScalarType dtype);

// Throws Error(kInvalidArgument) naming the weight when it became infinite in f16.
void RequireFits(const std::string& name, const at::Tensor& weight);

// Throws Error(kInvalidArgument) when `folder` exists and holds anything.
void RequireNewFolder(const std::filesystem::path& folder);

}  // namespace lwm::checkpoint
