// diffusers' names of a VQGAN's weights and the paths in the published pickle.
#include "lwm/checkpoint/vqgan_names.h"

#include <algorithm>
#include <array>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::checkpoint {
namespace {

struct Renaming {
  std::string_view diffusers, flax;
};

// Flax numbers modules by type in order of use, so a name part becomes one path part; a part
// followed by a number N ("resnets.1") becomes "ResnetBlock_N".
constexpr std::array<Renaming, 5> kNumbered = {{{"down_blocks", "DownsamplingBlock_"},
                                                {"up_blocks", "UpsamplingBlock_"},
                                                {"resnets", "ResnetBlock_"},
                                                {"downsamplers", "Downsample_"},
                                                {"upsamplers", "Upsample_"}}};
constexpr std::array<Renaming, 10> kParts = {{{"conv_in", "Conv_0"},
                                              {"conv_out", "Conv_1"},
                                              {"conv_norm_out", "GroupNorm_0"},
                                              {"mid_block", "MidBlock_0"},
                                              {"norm1", "GroupNorm_0"},
                                              {"norm2", "GroupNorm_1"},
                                              {"conv1", "Conv_0"},
                                              {"conv2", "Conv_1"},
                                              {"conv_shortcut", "Conv_2"},
                                              {"conv", "Conv_0"}}};

template <size_t n>
std::string_view Find(const std::array<Renaming, n>& list, std::string_view part) {
  const auto found = std::find_if(list.begin(), list.end(), [&](const Renaming& renaming) {
    return renaming.diffusers == part;
  });
  return found == list.end() ? std::string_view() : found->flax;
}

std::vector<std::string> Split(const std::string& name) {
  std::vector<std::string> parts(1);
  for (const char c : name) {
    if (c == '.') {
      parts.emplace_back();
    } else {
      parts.back() += c;
    }
  }
  return parts;
}

// "kernel" and "bias" of a convolution, "scale" and "bias" of a norm.
std::string Leaf(const std::string& module, const std::string& leaf) {
  if (leaf == "bias") return leaf;
  return module.find("norm") == std::string::npos ? "kernel" : "scale";
}

}  // namespace

std::string FlaxName(const std::string& diffusers_name) {
  if (diffusers_name == "quantize.embedding.weight") return "quantize/embeddings";
  const std::vector<std::string> parts = Split(diffusers_name);
  LWM_CHECK(parts.size() >= 2, "not a weight's name: ", diffusers_name);
  std::string path;
  for (size_t i = 0; i + 1 < parts.size(); ++i) {
    std::string part(Find(kParts, parts[i]));
    if (const auto numbered = Find(kNumbered, parts[i]); !numbered.empty())
      part = std::string(numbered) + parts[++i];
    path += (part.empty() ? parts[i] : part) + "/";
  }
  return path + Leaf(parts[parts.size() - 2], parts.back());
}

}  // namespace lwm::checkpoint
