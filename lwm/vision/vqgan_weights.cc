#include "lwm/vision/vqgan_weights.h"

#include <ATen/ATen.h>
#include <ATen/CPUGeneratorImpl.h>

#include <cmath>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

class Walk {
 public:
  using Visit = std::function<void(const VqganSpec&, at::Tensor&)>;
  explicit Walk(const Visit& visit) : visit_(visit) {}

  void Conv(const std::string& name, int64_t in, int64_t out, int64_t kernel, ConvWeights& conv) {
    visit_({name + ".weight", {out, in, kernel, kernel}}, conv.weight_OIHW);
    visit_({name + ".bias", {out}}, conv.bias_O);
  }

  void Norm(const std::string& name, int64_t channels, NormWeights& norm) {
    visit_({name + ".weight", {channels}}, norm.scale_C);
    visit_({name + ".bias", {channels}}, norm.bias_C);
  }

  void Resnet(const std::string& name, int64_t in, int64_t out, ResnetWeights& block) {
    Norm(name + ".norm1", in, block.norm1);
    Conv(name + ".conv1", in, out, 3, block.conv1);
    Norm(name + ".norm2", out, block.norm2);
    Conv(name + ".conv2", out, out, 3, block.conv2);
    if (in != out) Conv(name + ".conv_shortcut", in, out, 1, block.shortcut);
  }

  // `blocks` and `resample` are the names of the levels and of the convolution between them.
  void Levels(const std::string& blocks, const std::string& resample,
              const std::vector<int64_t>& widths, int64_t layers, PyramidWeights& side) {
    side.levels.resize(widths.size());
    for (size_t i = 0; i < widths.size(); ++i) {
      LevelWeights& level = side.levels[i];
      const std::string name = Cat(blocks, ".", i);
      level.resnets.resize(static_cast<size_t>(layers));
      for (size_t j = 0; j < level.resnets.size(); ++j) {
        const int64_t in = j > 0 || i == 0 ? widths[i] : widths[i - 1];
        Resnet(Cat(name, ".resnets.", j), in, widths[i], level.resnets[j]);
      }
      if (i + 1 < widths.size())
        Conv(Cat(name, ".", resample, ".0.conv"), widths[i], widths[i], 3, level.resample);
    }
  }

  void Ends(const std::string& name, int64_t coarsest, int64_t last, int64_t out,
            PyramidWeights& side) {
    side.middle.resize(2);
    for (size_t j = 0; j < side.middle.size(); ++j)
      Resnet(Cat(name, ".mid_block.resnets.", j), coarsest, coarsest, side.middle[j]);
    Norm(name + ".conv_norm_out", last, side.norm_out);
    Conv(name + ".conv_out", last, out, 3, side.conv_out);
  }

 private:
  const Visit& visit_;
};

}  // namespace

void ForEachWeight(const config::VqganConfig& config, VqganWeights& weights,
                   const std::function<void(const VqganSpec&, at::Tensor&)>& visit) {
  Walk walk(visit);
  const auto& down = config.block_out_channels;
  const std::vector<int64_t> up(down.rbegin(), down.rend());
  const int64_t latent = config.latent_channels, dim = config.vq_embed_dim;
  walk.Conv("encoder.conv_in", config.stem_channels(), down.front(), 3, weights.encoder.conv_in);
  walk.Levels("encoder.down_blocks", "downsamplers", down, config.layers_per_block,
              weights.encoder);
  walk.Ends("encoder", down.back(), down.back(), latent, weights.encoder);
  visit({"quantize.embedding.weight", {config.num_vq_embeddings, dim}}, weights.codebook_VC);
  walk.Conv("quant_conv", latent, dim, 1, weights.quant_conv);
  walk.Conv("post_quant_conv", dim, latent, 1, weights.post_quant_conv);
  walk.Conv("decoder.conv_in", latent, up.front(), 3, weights.decoder.conv_in);
  walk.Levels("decoder.up_blocks", "upsamplers", up, config.layers_per_block + 1, weights.decoder);
  walk.Ends("decoder", up.front(), up.back(), config.head_channels(), weights.decoder);
}

std::vector<VqganSpec> VqganSpecs(const config::VqganConfig& config) {
  std::vector<VqganSpec> specs;
  VqganWeights unused;
  ForEachWeight(config, unused, [&](const VqganSpec& spec, at::Tensor&) { specs.push_back(spec); });
  return specs;
}

VqganWeights RandomVqganWeights(const config::VqganConfig& config, uint64_t seed) {
  config.Validate();
  at::Generator generator = at::detail::createCPUGenerator(seed);
  VqganWeights weights;
  double bound = 1;
  ForEachWeight(config, weights, [&](const VqganSpec& spec, at::Tensor& weight) {
    weight = at::empty(spec.shape);
    if (spec.shape.size() == 4) {
      const int64_t fan_in = spec.shape[1] * spec.shape[2] * spec.shape[3];
      // PyTorch's default of convolutions; their biases, which follow, share the bound.
      bound = 1 / std::sqrt(static_cast<double>(fan_in));
    } else if (spec.shape.size() == 2) {
      // The codebook, as in taming-transformers and diffusers.
      bound = 1 / static_cast<double>(config.num_vq_embeddings);
    }
    const bool is_norm = spec.name.find("norm") != std::string::npos;
    if (is_norm) {
      weight.fill_(spec.name.ends_with(".weight") ? 1 : 0);
    } else {
      weight.uniform_(-bound, bound, generator);
    }
  });
  return weights;
}

}  // namespace lwm::vision
