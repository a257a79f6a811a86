#include "lwm/config/vqgan_config.h"

#include "lwm/base/error.h"

namespace lwm::config {
namespace {

constexpr char kDownBlock[] = "DownEncoderBlock2D";
constexpr char kUpBlock[] = "UpDecoderBlock2D";
constexpr int64_t kMaxLevels = 8;
constexpr int64_t kMaxChannels = 1 << 16;

void RequireRange(const char* field, int64_t value, int64_t low, int64_t high) {
  LWM_REQUIRE(value >= low && value <= high, "VQGAN config: ", field, " is ", value, ", want ", low,
              " to ", high);
}

// Weights of a convolution with a square kernel and a bias.
int64_t ConvCount(int64_t in, int64_t out, int64_t kernel) {
  return in * out * kernel * kernel + out;
}

int64_t ResnetCount(int64_t in, int64_t out) {
  const int64_t shortcut = in == out ? 0 : ConvCount(in, out, 1);
  return 2 * in + ConvCount(in, out, 3) + 2 * out + ConvCount(out, out, 3) + shortcut;
}

// One side of the pyramid from its first to its last width, with what stands at both ends.
int64_t PyramidCount(const std::vector<int64_t>& widths, int64_t layers, int64_t in, int64_t out,
                     int64_t middle) {
  int64_t count = ConvCount(in, widths.front(), 3) + 2 * widths.back() +
                  ConvCount(widths.back(), out, 3) + 2 * ResnetCount(middle, middle);
  for (size_t i = 0; i < widths.size(); ++i) {
    count += ResnetCount(widths[i == 0 ? 0 : i - 1], widths[i]);
    count += (layers - 1) * ResnetCount(widths[i], widths[i]);
    if (i + 1 < widths.size()) count += ConvCount(widths[i], widths[i], 3);
  }
  return count;
}

void RequireText(const Json& json, const std::string& where, const char* key,
                 const std::string& wanted) {
  const auto value = JsonGet<std::string>(json, key, where, wanted);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, value == wanted, where, ": ", key, " '", value,
                 "' is not supported, only '", wanted, "'");
}

void RequireBlocks(const Json& json, const std::string& where, const char* key,
                   const std::string& wanted, size_t levels) {
  const std::vector<std::string> all(levels, wanted);
  const auto blocks = JsonGet<std::vector<std::string>>(json, key, where, all);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, blocks == all, where, ": ", key, " must be ", wanted,
                 " once per level (", levels, "), as many as block_out_channels");
}

void RequireSupported(const Json& json, const std::string& where, size_t levels) {
  RequireText(json, where, "_class_name", "VQModel");
  RequireText(json, where, "act_fn", "silu");
  RequireText(json, where, "norm_type", "group");
  RequireBlocks(json, where, "down_block_types", kDownBlock, levels);
  RequireBlocks(json, where, "up_block_types", kUpBlock, levels);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 !JsonGet<bool>(json, "mid_block_add_attention", where, true), where,
                 ": mid_block_add_attention must be false; attention inside the VQGAN is not "
                 "supported");
}

}  // namespace

int64_t VqganConfig::CodesPerFrame(int64_t frame_size) const {
  const int64_t pixels = frame_size > 0 ? frame_size : sample_size, side = pixels / Reduction();
  LWM_REQUIRE(side >= 1 && pixels % Reduction() == 0, "frames of ", pixels, " x ", pixels,
              " pixels are not a whole number of codes: this VQGAN needs a multiple of ",
              Reduction());
  return side * side;
}

int64_t VqganConfig::ParameterCount() const {
  const std::vector<int64_t> reversed(block_out_channels.rbegin(), block_out_channels.rend());
  const int64_t middle = block_out_channels.back();
  return PyramidCount(block_out_channels, layers_per_block, stem_channels(), latent_channels,
                      middle) +
         PyramidCount(reversed, layers_per_block + 1, latent_channels, head_channels(), middle) +
         ConvCount(latent_channels, vq_embed_dim, 1) + ConvCount(vq_embed_dim, latent_channels, 1) +
         num_vq_embeddings * vq_embed_dim;
}

void VqganConfig::Validate() const {
  RequireRange("number of block_out_channels", levels(), 1, kMaxLevels);
  RequireRange("layers_per_block", layers_per_block, 1, 64);
  RequireRange("latent_channels", latent_channels, 1, kMaxChannels);
  RequireRange("vq_embed_dim", vq_embed_dim, 1, kMaxChannels);
  RequireRange("num_vq_embeddings", num_vq_embeddings, 1, 1 << 24);
  RequireRange("norm_num_groups", norm_num_groups, 1, kMaxChannels);
  RequireRange("sample_size", sample_size, 1, 1 << 15);
  RequireRange("in_channels", in_channels, 3, 3);
  RequireRange("out_channels", out_channels, 3, 3);
  RequireRange("space_to_depth", space_to_depth, 1, 64);
  for (const int64_t channels : block_out_channels) {
    RequireRange("block_out_channels", channels, 1, kMaxChannels);
    LWM_REQUIRE(channels % norm_num_groups == 0, "VQGAN config: block_out_channels has ", channels,
                ", which norm_num_groups ", norm_num_groups, " does not divide");
  }
}

VqganConfig ParseVqganConfig(const Json& json, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, json.is_object(), where,
                 ": want a JSON object, the config of a VQModel");
  VqganConfig config;
  config.block_out_channels = JsonGet<std::vector<int64_t>>(json, "block_out_channels", where);
  RequireSupported(json, where, config.block_out_channels.size());
  config.layers_per_block = JsonGet<int64_t>(json, "layers_per_block", where);
  config.latent_channels = JsonGet<int64_t>(json, "latent_channels", where);
  config.vq_embed_dim =
      JsonGet<int64_t>(json, "vq_embed_dim", where, int64_t{config.latent_channels});
  config.num_vq_embeddings = JsonGet<int64_t>(json, "num_vq_embeddings", where);
  config.norm_num_groups = JsonGet<int64_t>(json, "norm_num_groups", where, int64_t{32});
  config.sample_size = JsonGet<int64_t>(json, "sample_size", where);
  config.in_channels = JsonGet<int64_t>(json, "in_channels", where, int64_t{3});
  config.out_channels = JsonGet<int64_t>(json, "out_channels", where, int64_t{3});
  config.space_to_depth = JsonGet<int64_t>(json, "space_to_depth", where, int64_t{1});
  config.Validate();
  return config;
}

VqganConfig ReadVqganConfig(const std::filesystem::path& file) {
  return ParseVqganConfig(ReadJsonFile(file), file.string());
}

Json VqganConfigToJson(const VqganConfig& config) {
  const auto levels = config.block_out_channels.size();
  Json json = {{"_class_name", "VQModel"},
               {"act_fn", "silu"},
               {"block_out_channels", config.block_out_channels},
               {"down_block_types", std::vector<std::string>(levels, kDownBlock)},
               {"in_channels", config.in_channels},
               {"latent_channels", config.latent_channels},
               {"layers_per_block", config.layers_per_block},
               {"lookup_from_codebook", true},
               {"mid_block_add_attention", false},
               {"norm_num_groups", config.norm_num_groups},
               {"norm_type", "group"},
               {"num_vq_embeddings", config.num_vq_embeddings},
               {"out_channels", config.out_channels},
               {"sample_size", config.sample_size},
               {"up_block_types", std::vector<std::string>(levels, kUpBlock)},
               {"vq_embed_dim", config.vq_embed_dim}};
  if (config.space_to_depth > 1) json["space_to_depth"] = config.space_to_depth;
  return json;
}

}  // namespace lwm::config
