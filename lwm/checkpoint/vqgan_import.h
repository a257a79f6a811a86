#pragma once

#include <ATen/core/Tensor.h>

#include <filesystem>
#include <memory>
#include <optional>
#include <string>

#include "lwm/config/vqgan_config.h"
#include "lwm/io/tensor_source.h"
#include "lwm/vision/vqgan.h"
#include "lwm/vision/vqgan_weights.h"

namespace lwm::checkpoint {

// True when the tensors are a VQGAN's, under diffusers' names or the published Flax names.
bool IsVqgan(const io::TensorSource& source);

// A VQGAN file of either form, its weights seen under diffusers' names and in diffusers' layout.
// Holds no weight data.
class VqganSource {
 public:
  // Every weight of the config must be there and nothing else.
  // Throws Error(kCorruptData) naming the weight.
  VqganSource(config::VqganConfig config, std::unique_ptr<io::TensorSource> source);

  const config::VqganConfig& config() const { return config_; }
  const io::TensorSource& source() const { return *source_; }

  // A copy in the stored dtype, contiguous. Throws Error(kCorruptData) naming the weight when its
  // shape differs from spec.shape, it is not of a float type, or it holds NaN or infinity.
  at::Tensor Read(const vision::VqganSpec& spec) const;

 private:
  config::VqganConfig config_;
  std::unique_ptr<io::TensorSource> source_;
  bool is_flax_;
};

// Opens `path`: a VQModel directory, one of its files, the published pickle, or a model directory
// with a vqgan folder inside, or what io::FindCheckpoint follows. The config is the first of:
// `config_json`; config.json in the folder or beside the file. Throws Error(kInvalidArgument) when
// there is none, Error(kNotFound) when there is no VQGAN.
std::unique_ptr<VqganSource> OpenVqgan(
    const std::filesystem::path& path,
    const std::optional<std::filesystem::path>& config_json = {});

// All weights, ready to run. Throws as OpenVqgan and VqganSource::Read do.
vision::Vqgan LoadVqgan(const std::filesystem::path& path, at::ScalarType dtype,
                        const std::optional<std::filesystem::path>& config_json = {});

// Writes a folder that appears whole or not at all and must not exist before. `dtype` is f32, bf16
// or f16. Memory: one weight.
//   Diffusers: config.json and diffusion_pytorch_model.safetensors.
//   Pickle: config.json and `vqgan`, the published form, nested dicts of numpy arrays; f32 or f16.
// Throws Error(kInvalidArgument) when a weight does not fit f16, or on bf16 for the pickle.
void SaveVqganDiffusers(const VqganSource& source, const std::filesystem::path& folder,
                        at::ScalarType dtype);
void SaveVqganPickle(const VqganSource& source, const std::filesystem::path& folder,
                     at::ScalarType dtype);

// A model in memory as a diffusers folder in f32, into `folder`, which must be there.
void SaveVqgan(const config::VqganConfig& config, const vision::VqganWeights& weights,
               const std::filesystem::path& folder);

}  // namespace lwm::checkpoint
