#pragma once

#include <filesystem>
#include <optional>
#include <string>

#include "lwm/base/json.h"
#include "lwm/config/train_config.h"
#include "lwm/eval/image_pairs.h"

namespace lwm::eval {

// What a training run shows of its model as it learns: hooks of train::Train.

// The recipe's train.sample_prompt, continued by the model directory `model`.
std::string SampleText(const config::TrainConfig& config, const std::filesystem::path& model);

// The recipe's [pictures] for one checkpoint after another; the pairs are read once.
class ImageReport {
 public:
  // `config` must outlive it.
  explicit ImageReport(const config::TrainConfig& config) : config_(config) {}

  // Draws pictures.prompts, or captions of pictures.pairs under their images, into `png`; returns
  // the measures of the pairs, {} without any. `last`: all pairs are described.
  Json operator()(const std::filesystem::path& model, const std::filesystem::path& png, bool last);

 private:
  infer::FrameOptions Drawing() const;
  Json Measure(const infer::Engine& engine, const std::filesystem::path& png, bool last);

  const config::TrainConfig& config_;
  std::optional<ImagePairs> pairs_;
};

}  // namespace lwm::eval
