#pragma once

#include <CLI/CLI.hpp>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "log_file.h"
#include "lwm/run/run_loop.h"

namespace lwm::app {

// Flags of the commands that train by a recipe.
struct RecipeFlags {
  RunFlags run;
  bool show_keys = false, show_template = false;
  std::string recipe, log_file;
  std::shared_ptr<LogFile> log;        // rank 0's, while a run goes on with --log-file
  std::vector<std::string> overrides;  // --seed, --dtype and LWM_SET included, which win over --set
};

// A kind of recipe, as its config declares it.
struct RecipeKind {
  std::string name;               // of its command: "lwm train"
  std::string help;               // its keys by section, with defaults
  std::vector<std::string> keys;  // "section.key"
  std::string (*make_template)();
};

// Declares the flags and has `run` called with them. The help ends with `examples`, how a run is
// stopped and gone on with, and the recipe's keys. A key given as a flag ("--steps 10") is refused
// with the right way to set it.
void AddRecipeCommand(CLI::App& command, const RecipeKind& kind, const std::string& examples,
                      const std::function<void(RecipeFlags& flags)>& run);

// Lines on stderr and in the log file; SIGTERM, SIGINT or SIGUSR1 asks the run to stop from now on,
// which rank 0 answers; a second one ends the program at once.
run::RunHooks MakeRunHooks(RunContext& context, RecipeFlags& flags);

}  // namespace lwm::app
