// lwm vqgan train: a recipe becomes a VQGAN. Parse, one call, print.
#include "commands/vqgan.h"
#include "flags/recipe_flags.h"
#include "lwm/config/vqgan_train_config.h"
#include "lwm/vision_train/vqgan_trainer.h"

namespace lwm::app {
namespace {

void RunTrain(RecipeFlags& flags) {
  const auto config = config::ReadVqganTrainConfig(flags.recipe, flags.overrides);
  RunContext context(flags.run);
  vision_train::TrainVqgan(config, context.world(), MakeRunHooks(context, flags));
}

}  // namespace

void AddVqganTrain(CLI::App& vqgan) {
  CLI::App* command = vqgan.add_subcommand("train", "train a VQGAN by a recipe");
  AddRecipeCommand(*command,
                   {"lwm vqgan train", config::VqganTrainConfigHelp(),
                    config::VqganTrainConfigKeys(), config::VqganTrainConfigTemplate},
                   "  lwm vqgan train recipes/vqgan-clipart.toml\n"
                   "  mpirun -np 2 lwm vqgan train recipes/vqgan-clipart.toml "
                   "--set train.steps=500 --set train.run_folder=runs/try\n"
                   "  lwm vqgan encode --model runs/vqgan-clipart/model photo.jpg --output "
                   "codes.safetensors\n",
                   RunTrain);
}

}  // namespace lwm::app
