#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/train/run_loop.h"

namespace lwm::app {

// Flags of the commands that train by a recipe.
struct RecipeFlags {
  RunFlags run;
  std::string recipe;
  std::vector<std::string> overrides;  // --seed and --dtype included, which win over --set
};

// Declares them and has `run` called with them. The help ends with `examples`, how a run is stopped
// and gone on with, and `keys`, the help of the recipe's keys.
void AddRecipeCommand(CLI::App& command, const std::string& examples, const std::string& keys,
                      const std::function<void(const RecipeFlags& flags)>& run);

// Lines on stderr; SIGTERM, SIGINT or SIGUSR1 asks the run to stop from now on, which rank 0
// answers; a second one ends the program at once.
train::RunHooks MakeRunHooks(const Session& session);

}  // namespace lwm::app
