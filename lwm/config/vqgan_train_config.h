#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/config/fields.h"
#include "lwm/config/training_sections.h"
#include "lwm/config/vqgan_config.h"

namespace lwm::config {

// Everything `lwm vqgan train` needs, one struct per TOML section, as in train_config.h.

struct VqganModelSection {
  VqganConfig sizes;  // defaults: the published tokenizer

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("block_out_channels", sizes.block_out_channels, AtLeast(1),
          "channels of each level, finest first; a level halves the image");
    field("layers_per_block", sizes.layers_per_block, AtLeast(1),
          "residual blocks per level going down; one more going up");
    field("latent_channels", sizes.latent_channels, AtLeast(1), "between the pyramid and a code");
    field("vq_embed_dim", sizes.vq_embed_dim, AtLeast(1), "width of a codebook row");
    field("num_vq_embeddings", sizes.num_vq_embeddings, AtLeast(2), "codes");
    field("norm_num_groups", sizes.norm_num_groups, AtLeast(1), "groups of the norms");
    field("sample_size", sizes.sample_size, AtLeast(1), "side of the images, pixels");
    field("space_to_depth", sizes.space_to_depth, AtLeast(1),
          "side of the pixel squares that become channels before the first level; 1: none");
  }
};

struct VqganDataSection {
  std::vector<std::string> train;
  std::vector<double> weights;
  int64_t max_frames = 0;
  double frames_per_second = 0;
  bool skip_bad = false;
  std::string held_out;
  double flip = 0.5;
  double scale = 1.25;
  double aspect = 1.1;
  double shift = 0.1;
  double gamma = 0.35;
  double permute = 0.3;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("train", train, Limits(), "images, videos, or folders of them");
    field("weights", weights, AtLeast(0),
          "share of the draws of each entry of train; empty: equal");
    field("max_frames", max_frames, AtLeast(0), "frames of a video, evenly spread; 0: all");
    field("frames_per_second", frames_per_second, AtLeast(0), "taken of a video at most; 0: all");
    field("skip_bad", skip_bad, Limits(), "leave out files that cannot be decoded");
    field("held_out", held_out, Limits(),
          "text file with the file names of images to measure on, one a line");
    field("flip", flip, Between(0, 1), "chance of left for right");
    field("scale", scale, Between(0, 8), "zoom between 1 / scale and scale; 0: none");
    field("aspect", aspect, Between(0, 8), "width to height, likewise");
    field("shift", shift, Between(0, 1), "largest move, part of the side");
    field("gamma", gamma, Between(0, 3), "values v become v^exp(+-gamma)");
    field("permute", permute, Between(0, 1), "chance of a random order of the colour channels");
  }
};

struct CodebookSection {
  std::string update = "ema";
  std::string start = "kmeans";
  double decay = 0.98;
  double smoothing = 1e-5;
  double commitment = 0.25;
  double warmup = 0.03;
  int64_t kmeans_rounds = 10;
  int64_t kmeans_latents = 8192;
  int64_t revive_every = 20;
  double revive_until = 0.85;
  double revive_below = 0.05;
  double use_decay = 0.95;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("update", update, OneOf({"ema", "loss"}),
          "ema: rows follow the mean of their latents; loss: by gradient");
    field("start", start, OneOf({"kmeans", "uniform"}),
          "kmeans: from latents after the warm-up; uniform: random within 1 / codes");
    field("decay", decay, Between(0, 0.999999), "ema: what a row keeps in a step");
    field("smoothing", smoothing, Between(0, 1), "ema: added to the counts");
    field("commitment", commitment, AtLeast(0), "weight of |latent - code|^2");
    field("warmup", warmup, Between(0, 0.5), "part of the steps without quantising");
    field("kmeans_rounds", kmeans_rounds, AtLeast(1), "rounds of k-means");
    field("kmeans_latents", kmeans_latents, AtLeast(1), "newest latents it looks at");
    field("revive_every", revive_every, AtLeast(0), "steps between revivals; 0: never");
    field("revive_until", revive_until, Between(0, 1), "part of the steps after which none is");
    field("revive_below", revive_below, Between(0, 1),
          "a code used less than this part of the mean is replaced by a latent");
    field("use_decay", use_decay, Between(0, 0.999999), "what the running use keeps in a step");
  }
};

struct VqganLossSection {
  double l1 = 1.0;
  double mse = 1.0;
  double perceptual = 0.0;
  std::string perceptual_features = "random";
  std::vector<int64_t> perceptual_channels = {16, 32, 64};
  double adversarial = 0.0;
  int64_t adversarial_start = 0;
  int64_t discriminator_channels = 32;
  int64_t discriminator_layers = 2;
  double discriminator_lr = 2e-4;
  double adversarial_limit = 1e4;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("l1", l1, AtLeast(0), "weight of |x - y|, pixels in [-1, 1]");
    field("mse", mse, AtLeast(0), "weight of |x - y|^2");
    field("perceptual", perceptual, AtLeast(0),
          "weight of the distance of features (as LPIPS); 0: none");
    field("perceptual_features", perceptual_features, Limits(),
          "random: filters drawn by the seed; discriminator: its own; else a safetensors file");
    field("perceptual_channels", perceptual_channels, AtLeast(1), "of each level of random ones");
    field("adversarial", adversarial, AtLeast(0),
          "weight of the patch discriminator, times the adaptive weight; 0: none");
    field("adversarial_start", adversarial_start, AtLeast(0), "first step with it");
    field("discriminator_channels", discriminator_channels, AtLeast(1), "its width");
    field("discriminator_layers", discriminator_layers, AtLeast(1), "its halvings");
    field("discriminator_lr", discriminator_lr, AtLeast(0), "its learning rate");
    field("adversarial_limit", adversarial_limit, AtLeast(0), "largest adaptive weight");
  }
};

struct VqganTrainSection : LoopSection {
  VqganTrainSection() { log_every = 50; }
  int64_t batch = 8;
  double average = 0.998;
  int64_t grid_every = 0;
  int64_t grid_pictures = 16;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    LoopSection::ForEachField(field);
    field("batch", batch, AtLeast(1), "images of a step, all ranks together");
    field("average", average, Between(0, 0.999999),
          "decay of the averaged weights, which are measured and exported");
    field("grid_every", grid_every, AtLeast(0), "steps between grids; 0: at the end only");
    field("grid_pictures", grid_pictures, AtLeast(1), "held-out images in a grid");
  }
};

struct VqganOptimizerSection : AdamWSection {
  VqganOptimizerSection() {
    lr = 1e-3;
    beta2 = 0.99;
    weight_decay = 1e-4;
  }
};

struct VqganTrainConfig {
  VqganModelSection model;
  VqganDataSection data;
  CodebookSection codebook;
  VqganLossSection loss;
  VqganTrainSection train;
  VqganOptimizerSection optimizer;

  template <class Visitor>
  void ForEachSection(Visitor&& section) {
    section("model", model, "the VQGAN, fields named as in diffusers");
    section("data", data, "images, and how each is changed before it is shown");
    section("codebook", codebook, "how codes begin, follow the latents and come back to life");
    section("loss", loss, "what a reconstruction costs");
    section("train", train, "the loop");
    section("optimizer", optimizer, "AdamW and its schedule");
  }

  // Checks fields against each other: throws Error(kInvalidArgument) naming the keys that clash.
  void Validate() const;
};

// Reads a recipe over the defaults, then the overrides ("section.key=value") in order, then
// validates. Throws Error(kInvalidArgument) naming file, line and key.
VqganTrainConfig ReadVqganTrainConfig(const std::filesystem::path& recipe,
                                      const std::vector<std::string>& overrides);
VqganTrainConfig ParseVqganTrainConfig(std::string_view toml, const std::string& where,
                                       const std::vector<std::string>& overrides);

Json VqganTrainConfigToJson(const VqganTrainConfig& config);
std::vector<std::string> VqganTrainConfigKeys();
std::string VqganTrainConfigHelp();
std::string VqganTrainConfigTemplate();

}  // namespace lwm::config
