// lwm train: a recipe becomes a model. Parse, one call, print.

#include <ATen/ATen.h>

#include <optional>
#include <string>
#include <vector>

#include "command.h"
#include "flags/model_flags.h"
#include "flags/recipe_flags.h"
#include "image_model.h"
#include "lwm/base/error.h"
#include "lwm/checkpoint/model_directory.h"
#include "lwm/config/train_config.h"
#include "lwm/infer/generator.h"
#include "lwm/io/image_file.h"
#include "lwm/train/trainer.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/image_grid.h"

namespace lwm::app {
namespace {

// Continues the recipe's prompt with the model in `folder`.
std::string Sample(const config::TrainConfig& config, const std::filesystem::path& folder) {
  const at::ScalarType dtype = config.train.dtype == "f32" ? at::kFloat : at::kBFloat16;
  model::ResidentWeights weights = checkpoint::LoadModel(folder, dtype);
  const auto tokenizer = OpenTokenizerFor(weights.config(), folder.string());
  const std::vector<int32_t> prompt = EncodePrompt(*tokenizer, config.train.sample_prompt);
  infer::GenerateOptions options;
  options.max_new_tokens = config.train.sample_tokens;
  options.sampling = {.temperature = config.train.sample_temperature, .top_p = 0.95};
  options.seed = static_cast<uint64_t>(config.train.seed);
  options.vocabulary = tokenizer->vocab_size();
  data::StreamDecoder decoder(*tokenizer);
  for (const int32_t id : prompt) decoder.Push(id);  // prime the decoder with the prompt
  std::string text;
  infer::Generate(infer::DecodeModel(weights.config(), weights),
                  std::vector<int64_t>(prompt.begin(), prompt.end()), options, [&](int64_t id) {
                    text += decoder.Push(static_cast<int32_t>(id));
                    return true;
                  });
  return text + decoder.Finish();
}

// The recipe's [images] for one checkpoint after another; the pairs are read once.
class ImageReport {
 public:
  explicit ImageReport(const config::TrainConfig& config) : config_(config) {}

  Json operator()(const std::filesystem::path& folder, const std::filesystem::path& png,
                  bool last) {
    const config::PicturesSection& section = config_.pictures;
    const at::ScalarType dtype = config_.train.dtype == "f32" ? at::kFloat : at::kBFloat16;
    LoadedImageModel model(folder.string(), "", dtype);
    if (!section.prompts.empty()) {
      const at::Tensor codes_Pn = eval::ImagesOf(model.view(), section.prompts, Drawing());
      io::WritePng(png, vision::ImageGrid(model.FramesOf(codes_Pn), {.columns = section.columns}));
    }
    return section.pairs.empty() ? Json::object() : Measure(model, png, last);
  }

 private:
  infer::FrameOptions Drawing() const {
    infer::FrameOptions options;
    options.scale = config_.pictures.scale;
    options.sampling = {.temperature = config_.pictures.temperature,
                        .top_k = config_.pictures.top_k};
    options.seeds = {static_cast<uint64_t>(config_.train.seed)};
    return options;
  }

  Json Measure(LoadedImageModel& model, const std::filesystem::path& png, bool last) {
    const config::PicturesSection& section = config_.pictures;
    if (!pairs_)
      pairs_ = eval::ReadImagePairs(section.pairs, section.caption_key, section.picture_key,
                                    model.vqgan(), model.layout().frame_size);
    const eval::PairOptions options{.images = section.pairs_count,
                                    .captions = last ? 0 : section.pairs_count,
                                    .drawing = Drawing()};
    const eval::PairScores scores = eval::MeasurePairs(model.view(), *pairs_, options);
    if (section.prompts.empty()) {
      const auto drawn = eval::SomePairs(*pairs_, section.pairs_count);
      io::WritePng(png, vision::PairGrid(vision::FramesOfTensor(drawn.images_PHWC),
                                         model.FramesOf(scores.drawn_codes_Dn),
                                         {.columns = section.columns}));
    }
    return ToJson(scores);
  }

  const config::TrainConfig& config_;
  std::optional<eval::ImagePairs> pairs_;
};

void RunTrain(RecipeFlags& flags) {
  const config::TrainConfig config = config::ReadTrainConfig(flags.recipe, flags.overrides);
  const std::string& pairs = config.pictures.pairs;
  LWM_REQUIRE_AS(ErrorCode::kNotFound, pairs.empty() || std::filesystem::exists(pairs),
                 "pictures.pairs: there is no file ", pairs);
  RunContext context(flags.run);
  train::TrainHooks hooks{MakeRunHooks(context, flags), {}, {}};
  hooks.sample = [&](const std::filesystem::path& checkpoint) {
    return Sample(config, checkpoint);
  };
  hooks.images = ImageReport(config);
  train::Train(config, context.world(), hooks);
}

void AddTrain(CLI::App& root) {
  CLI::App* command = root.add_subcommand("train", "train or extend a model by a recipe");
  AddRecipeCommand(*command,
                   {"lwm train", config::TrainConfigHelp(), config::TrainConfigKeys(),
                    config::TrainConfigTemplate},
                   "  lwm train recipes/quickstart.toml\n"
                   "  mpirun -np 2 lwm train recipes/quickstart.toml "
                   "--set train.steps=50 --set train.run_folder=runs/try\n"
                   "  lwm train --template > my.toml\n",
                   RunTrain);
}
const Command train_command(Job::kTrain, "train", AddTrain);

}  // namespace
}  // namespace lwm::app
