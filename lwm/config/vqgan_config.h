#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/json.h"

namespace lwm::config {

// Architecture of one VQGAN: a pyramid of residual blocks without attention. Field names are those
// of diffusers' VQModel. The defaults are the published tokenizer's (146,244,675 weights).
struct VqganConfig {
  std::vector<int64_t> block_out_channels = {128, 256, 256, 512, 768};  // per level, finest first
  int64_t layers_per_block = 2;  // residual blocks per level going down; one more going up
  int64_t latent_channels = 64;  // between encoder and quant_conv
  int64_t vq_embed_dim = 64;     // of a codebook row
  int64_t num_vq_embeddings = 8192;
  int64_t norm_num_groups = 32;
  int64_t sample_size = 256;  // side of the images it was made for, pixels
  int64_t in_channels = 3, out_channels = 3;
  // Pixels of a square of this side become channels before the first convolution, and channels
  // become pixels after the last: less work at full resolution. 1 = off. Ours, not diffusers'.
  int64_t space_to_depth = 1;

  int64_t levels() const { return static_cast<int64_t>(block_out_channels.size()); }
  // Pixels per code and axis: 2^(levels - 1) * space_to_depth.
  int64_t Reduction() const { return (int64_t{1} << (levels() - 1)) * space_to_depth; }
  // Channels of the first convolution's input and of the last one's output.
  int64_t stem_channels() const { return in_channels * space_to_depth * space_to_depth; }
  int64_t head_channels() const { return out_channels * space_to_depth * space_to_depth; }
  // Codes of a frame of that side in pixels; 0 = sample_size. Throws Error(kInvalidArgument) when
  // they are no whole number.
  int64_t CodesPerFrame(int64_t frame_size) const;
  int64_t ParameterCount() const;
  // Throws Error(kInvalidArgument) naming the field, its value and what is allowed.
  void Validate() const;
};

// config.json of a VQModel. vq_embed_dim may be absent or null (= latent_channels); other sizes are
// required. Refused, because this program does not compute it: attention in the middle block
// (diffusers' default, so mid_block_add_attention must say false), attention or other blocks in the
// pyramid, spatial norms, another activation. Throws Error(kCorruptData) naming `where` and the
// field, and as Validate does.
VqganConfig ParseVqganConfig(const Json& json, const std::string& where);
VqganConfig ReadVqganConfig(const std::filesystem::path& file);

// The reverse; diffusers reads it when space_to_depth is 1, and only then knows all of the model.
Json VqganConfigToJson(const VqganConfig& config);

}  // namespace lwm::config
