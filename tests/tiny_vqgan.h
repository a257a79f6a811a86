#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <filesystem>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/base/random.h"
#include "lwm/io/media_opencv.h"
#include "lwm/io/safetensors.h"
#include "lwm/vision/vqgan_import.h"

namespace lwm::testing_support {

// 16 x 16 pixels to 4 codes out of 50.
inline config::VqganConfig TinyVqganConfig() {
  config::VqganConfig config;
  config.block_out_channels = {4, 4, 4, 8};
  config.layers_per_block = 1;
  config.latent_channels = 3;
  config.vq_embed_dim = 2;
  config.num_vq_embeddings = 50;
  config.norm_num_groups = 2;
  config.sample_size = 16;
  return config;
}

// A VQModel directory with random weights; latents are spread over the codebook.
inline void WriteTinyVqgan(const std::filesystem::path& folder, uint64_t seed) {
  at::set_num_threads(1);  // several cost more than they give on so small a model
  const config::VqganConfig config = TinyVqganConfig();
  vision::VqganWeights weights = vision::RandomVqganWeights(config, seed);
  weights.codebook_VC.mul_(20);
  std::vector<io::TensorInfo> infos;
  for (const vision::VqganSpec& spec : vision::VqganSpecs(config))
    infos.push_back({spec.name, io::DType::kF32, spec.shape});
  std::filesystem::create_directories(folder);
  WriteFileAtomically(folder / "config.json", config::VqganConfigToJson(config).dump());
  io::SafetensorsWriter writer(folder / "diffusion_pytorch_model.safetensors", infos);
  vision::ForEachWeight(config, weights, [&](const vision::VqganSpec& spec, at::Tensor& weight) {
    writer.Write(spec.name, {static_cast<const std::byte*>(weight.data_ptr()), weight.nbytes()});
  });
  writer.Finish();
}

// Noise that differs with the key.
inline io::RgbImage NoisePicture(uint64_t key, int64_t width, int64_t height) {
  io::RgbImage image{width, height, {}};
  Random random(key);
  for (int64_t i = 0; i < width * height * 3; ++i)
    image.rgb_HWC.push_back(static_cast<uint8_t>(random.Below(256)));
  return image;
}

// Grey frames, ten a second, frame i of value 20 + 10 i.
inline void WriteGreyClip(const std::filesystem::path& path, int64_t frames) {
  io::Mp4Writer writer(path, 10);
  for (int64_t i = 0; i < frames; ++i)
    writer.Add({32, 24, std::vector<uint8_t>(32 * 24 * 3, static_cast<uint8_t>(20 + 10 * i))});
  writer.Finish();
}

}  // namespace lwm::testing_support
