#pragma once

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <filesystem>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/mp4_writer.h"

namespace lwm::testing_support {

// 8 x 8 pixels to 4 x 4 codes out of 10.
inline config::VqganConfig SmallestVqganConfig() {
  config::VqganConfig config;
  config.block_out_channels = {4, 8};
  config.layers_per_block = 1;
  config.latent_channels = 3;
  config.vq_embed_dim = 2;
  config.num_vq_embeddings = 10;
  config.norm_num_groups = 2;
  config.sample_size = 8;
  return config;
}

// 16 x 16 pixels to 2 x 2 codes out of 50.
inline config::VqganConfig TinyVqganConfig() {
  config::VqganConfig config = SmallestVqganConfig();
  config.block_out_channels = {4, 4, 4, 8};
  config.num_vq_embeddings = 50;
  config.sample_size = 16;
  return config;
}

// A VQModel directory.
inline void WriteVqgan(const std::filesystem::path& folder, const config::VqganConfig& config,
                       const vision::VqganWeights& weights) {
  at::set_num_threads(1);  // several cost more than they give on so small a model
  std::filesystem::create_directories(folder);
  checkpoint::SaveVqgan(config, weights, folder);
}
inline void WriteSmallestVqgan(const std::filesystem::path& folder) {
  const config::VqganConfig config = SmallestVqganConfig();
  WriteVqgan(folder, config, vision::RandomVqganWeights(config, 9));
}

// Its latents are spread over the codebook.
inline void WriteTinyVqgan(const std::filesystem::path& folder, uint64_t seed) {
  vision::VqganWeights weights = vision::RandomVqganWeights(TinyVqganConfig(), seed);
  weights.codebook_VC.mul_(20);
  WriteVqgan(folder, TinyVqganConfig(), weights);
}

// Noise that differs with the key.
inline io::RgbImage NoiseImage(uint64_t key, int64_t width, int64_t height) {
  io::RgbImage image{width, height, {}};
  Random random(key);
  for (int64_t i = 0; i < width * height * 3; ++i)
    image.rgb_HWC.push_back(static_cast<uint8_t>(random.Below(256)));
  return image;
}

// Grey frames, ten a second, frame i of value 20 + 10 i.
inline void WriteGreyVideo(const std::filesystem::path& path, int64_t frames) {
  io::Mp4Writer writer(path, 10);
  for (int64_t i = 0; i < frames; ++i)
    writer.Add({32, 24, std::vector<uint8_t>(32 * 24 * 3, static_cast<uint8_t>(20 + 10 * i))});
  writer.Finish();
}

}  // namespace lwm::testing_support
