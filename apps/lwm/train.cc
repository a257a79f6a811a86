// lwm train: a recipe becomes a model. Parse, one call, print.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/base/error.h"
#include "lwm/config/train_config.h"
#include "lwm/infer/generator.h"
#include "lwm/model/model_directory.h"
#include "lwm/train/trainer.h"
#include "model_flags.h"

namespace lwm::app {
namespace {

struct TrainFlags {
  RunFlags run;
  std::string recipe;
  std::vector<std::string> overrides;
};

// --seed and --dtype are short for the recipe's keys and win over them when given.
void AddRunOverrides(const CLI::App& command, TrainFlags& flags) {
  if (command.count("--seed") > 0) flags.overrides.push_back(Cat("train.seed=", flags.run.seed));
  if (command.count("--dtype") > 0) flags.overrides.push_back("train.dtype=" + flags.run.dtype);
}

// What the model in `folder` makes of the recipe's prompt.
std::string Sample(const config::TrainConfig& config, const std::filesystem::path& folder) {
  const at::ScalarType dtype = config.train.dtype == "f32" ? at::kFloat : at::kBFloat16;
  model::ResidentWeights weights = model::LoadModel(folder, dtype);
  const auto tokenizer = OpenTokenizerFor(weights.config(), folder.string());
  const std::vector<int32_t> prompt = EncodePrompt(*tokenizer, config.train.sample_prompt);
  infer::GenerateOptions options;
  options.max_new_tokens = config.train.sample_tokens;
  options.sampling = {.temperature = config.train.sample_temperature, .top_p = 0.95};
  options.seed = static_cast<uint64_t>(config.train.seed);
  options.vocabulary = tokenizer->vocab_size();
  data::StreamDecoder decoder(*tokenizer);
  for (const int32_t id : prompt) decoder.Push(id);  // what follows goes on where it ends
  std::string text;
  infer::Generate(infer::DecodeModel(weights.config(), weights),
                  std::vector<int64_t>(prompt.begin(), prompt.end()), options, [&](int64_t id) {
                    text += decoder.Push(static_cast<int32_t>(id));
                    return true;
                  });
  return text + decoder.Finish();
}

void RunTrain(const TrainFlags& flags) {
  const config::TrainConfig config = config::ReadTrainConfig(flags.recipe, flags.overrides);
  Session session(flags.run);
  train::TrainHooks hooks;
  hooks.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); };
  hooks.sample = [&](const std::filesystem::path& checkpoint) {
    return Sample(config, checkpoint);
  };
  train::Train(config, session.world(), hooks);
}

void AddTrain(CLI::App& root) {
  CLI::App* command = root.add_subcommand("train", "train or extend a model by a recipe");
  auto flags = std::make_shared<TrainFlags>();
  command->add_option("--config", flags->recipe, "the recipe, a TOML file")->required();
  command->add_option("--set", flags->overrides, "section.key=value, over the recipe")
      ->take_all()
      ->allow_extra_args(false);
  AddRunFlags(*command, flags->run);
  AddExamples(*command,
              "  lwm train --config recipes/quickstart.toml\n"
              "  mpirun -np 2 lwm train --config recipes/quickstart.toml "
              "--set train.steps=50 --set train.run_folder=runs/try\n"
              "Run the same command again to go on from the newest checkpoint in the run folder.\n"
              "\nKeys of a recipe with their defaults:\n" +
                  config::TrainConfigHelp());
  command->callback([command, flags] {
    AddRunOverrides(*command, *flags);
    RunTrain(*flags);
  });
}
const Command train_command("train", AddTrain);

}  // namespace
}  // namespace lwm::app
