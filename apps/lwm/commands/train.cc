// lwm train: a recipe becomes a model. Parse, one call, print.

#include <filesystem>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "flags/recipe_flags.h"
#include "lwm/base/error.h"
#include "lwm/config/train_config.h"
#include "lwm/eval/training_samples.h"
#include "lwm/train/trainer.h"

namespace lwm::app {
namespace {

void RunTrain(RecipeFlags& flags) {
  const config::TrainConfig config = config::ReadTrainConfig(flags.recipe, flags.overrides);
  const std::string& pairs = config.pictures.pairs;
  LWM_REQUIRE_AS(ErrorCode::kNotFound, pairs.empty() || std::filesystem::exists(pairs),
                 "pictures.pairs: there is no file ", pairs);
  RunContext context(flags.run);
  train::TrainHooks hooks{MakeRunHooks(context, flags), {}, {}};
  hooks.sample = [&](const std::filesystem::path& checkpoint) {
    return eval::SampleText(config, checkpoint);
  };
  hooks.images = eval::ImageReport(config);
  train::Train(config, context.world(), hooks);
}

}  // namespace

void AddTrain(CLI::App& command) {
  AddRecipeCommand(command,
                   {"lwm train", config::TrainConfigHelp(), config::TrainConfigKeys(),
                    config::TrainConfigTemplate},
                   "  lwm train recipes/quickstart.toml\n"
                   "  mpirun -np 2 lwm train recipes/quickstart.toml "
                   "--set train.steps=50 --set train.run_folder=runs/try\n"
                   "  lwm train --template > my.toml\n",
                   RunTrain);
}

}  // namespace lwm::app
