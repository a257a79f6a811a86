#include "lwm/config/vqgan_train_config.h"

#include "lwm/base/error.h"
#include "lwm/config/recipe.h"

namespace lwm::config {
namespace {

constexpr char kHelp[] = "lwm vqgan train --help";

VqganTrainConfig FromDocument(const TomlDocument& document, const std::string& where,
                              const std::vector<std::string>& overrides) {
  VqganTrainConfig config;
  ApplyDocument(document, where, kHelp, config);
  for (const std::string& text : overrides) ApplyOverride(text, kHelp, config);
  config.Validate();
  return config;
}

}  // namespace

VqganTrainConfig ParseVqganTrainConfig(std::string_view toml, const std::string& where,
                                       const std::vector<std::string>& overrides) {
  return FromDocument(ParseToml(toml, where), where, overrides);
}

VqganTrainConfig ReadVqganTrainConfig(const std::filesystem::path& recipe,
                                      const std::vector<std::string>& overrides) {
  return FromDocument(ReadTomlFile(recipe), recipe.string(), overrides);
}

void VqganTrainConfig::Validate() const {
  train.Validate();
  optimizer.Validate();
  LWM_REQUIRE(!data.train.empty(), "data.train is missing: which images should it train on?");
  LWM_REQUIRE(data.weights.empty() || data.weights.size() == data.train.size(), "data.weights has ",
              data.weights.size(), " entries and data.train ", data.train.size(),
              ": give one weight for each");
  model.sizes.Validate();
  LWM_REQUIRE(model.sizes.sample_size % model.sizes.Reduction() == 0,
              "model.sample_size = ", model.sizes.sample_size, " is no multiple of ",
              model.sizes.Reduction(), ", the pixels per code that block_out_channels and ",
              "space_to_depth make");
  LWM_REQUIRE(loss.l1 + loss.mse > 0, "loss.l1 and loss.mse are both 0: nothing to learn from");
  LWM_REQUIRE(
      loss.perceptual == 0 || loss.perceptual_features != "discriminator" || loss.adversarial > 0,
      "loss.perceptual_features = \"discriminator\" wants loss.adversarial above 0");
  LWM_REQUIRE(
      codebook.start != "kmeans" || codebook.kmeans_latents >= model.sizes.num_vq_embeddings,
      "codebook.kmeans_latents = ", codebook.kmeans_latents,
      " cannot fill model.num_vq_embeddings = ", model.sizes.num_vq_embeddings, " codes");
}

Json VqganTrainConfigToJson(const VqganTrainConfig& config) { return RecipeToJson(config); }

std::vector<std::string> VqganTrainConfigKeys() { return RecipeKeys<VqganTrainConfig>(); }

std::string VqganTrainConfigHelp() { return RecipeHelp<VqganTrainConfig>(); }

std::string VqganTrainConfigTemplate() {
  return RecipeTemplate<VqganTrainConfig>("lwm vqgan train");
}

}  // namespace lwm::config
