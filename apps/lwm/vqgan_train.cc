// lwm vqgan train: a recipe becomes a VQGAN. Parse, one call, print.
#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/base/error.h"
#include "lwm/config/vqgan_train_config.h"
#include "lwm/vision_train/vqgan_trainer.h"
#include "vqgan.h"

namespace lwm::app {
namespace {

struct VqganTrainFlags {
  RunFlags run;
  std::string recipe;
  std::vector<std::string> overrides;
};

// --seed and --dtype are short for the recipe's keys and win over them when given.
void RunTrain(const CLI::App& command, VqganTrainFlags& flags) {
  if (command.count("--seed") > 0) flags.overrides.push_back(Cat("train.seed=", flags.run.seed));
  if (command.count("--dtype") > 0) flags.overrides.push_back("train.dtype=" + flags.run.dtype);
  const auto config = config::ReadVqganTrainConfig(flags.recipe, flags.overrides);
  Session session(flags.run);
  vision_train::TrainVqgan(config, session.world(), [](const std::string& line) {
    std::fprintf(stderr, "%s\n", line.c_str());
  });
}

}  // namespace

void AddVqganTrain(CLI::App& vqgan) {
  CLI::App* command = vqgan.add_subcommand("train", "train a VQGAN by a recipe");
  auto flags = std::make_shared<VqganTrainFlags>();
  command->add_option("--config", flags->recipe, "the recipe, a TOML file")->required();
  command->add_option("--set", flags->overrides, "section.key=value, over the recipe")
      ->take_all()
      ->allow_extra_args(false);
  AddRunFlags(*command, flags->run);
  AddExamples(*command,
              "  lwm vqgan train --config recipes/vqgan-clipart.toml\n"
              "  mpirun -np 2 lwm vqgan train --config recipes/vqgan-clipart.toml "
              "--set train.steps=500 --set train.run_folder=runs/try\n"
              "  lwm vqgan encode --model runs/vqgan-clipart/model photo.jpg --output "
              "codes.safetensors\n"
              "Run the same command again to go on from the newest checkpoint in the run folder.\n"
              "\nKeys of a recipe with their defaults:\n" +
                  config::VqganTrainConfigHelp());
  command->callback([command, flags] { RunTrain(*command, *flags); });
}

}  // namespace lwm::app
