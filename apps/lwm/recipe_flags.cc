#include "recipe_flags.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <string_view>

#include "lwm/base/error.h"

namespace lwm::app {
namespace {

constexpr char kAboutStopping[] =
    "Run the same command again to go on from the newest checkpoint in the run folder.\n"
    "Ctrl-C, SIGTERM or SIGUSR1 (which mpirun hands on to its ranks) makes it save a checkpoint\n"
    "after the step at hand and end; a second one ends it at once.\n";

volatile std::sig_atomic_t stop_asked = 0, answers = 0;

void AskToStop(int /*signal*/) {
  constexpr std::string_view kLine =
      "\nstopping with a checkpoint after this step; once more: at once\n";
  stop_asked = 1;
  if (!answers) return;
  // The answer to a failure is the same as to success.
  [[maybe_unused]] const ssize_t written = write(STDERR_FILENO, kLine.data(), kLine.size());
}

}  // namespace

void AddRecipeCommand(CLI::App& command, const std::string& examples, const std::string& keys,
                      const std::function<void(const RecipeFlags& flags)>& run) {
  auto flags = std::make_shared<RecipeFlags>();
  command.add_option("--config", flags->recipe, "the recipe, a TOML file")->required();
  command.add_option("--set", flags->overrides, "section.key=value, over the recipe")
      ->take_all()
      ->allow_extra_args(false);
  AddRunFlags(command, flags->run);
  AddExamples(command,
              examples + kAboutStopping + "\nKeys of a recipe with their defaults:\n" + keys);
  command.callback([&command, flags, run] {
    if (command.count("--seed") > 0)
      flags->overrides.push_back(Cat("train.seed=", flags->run.seed));
    if (command.count("--dtype") > 0) flags->overrides.push_back("train.dtype=" + flags->run.dtype);
    run(*flags);
  });
}

train::RunHooks MakeRunHooks(const Session& session) {
  answers = session.is_root() ? 1 : 0;
  struct sigaction action = {};
  action.sa_handler = AskToStop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  return {.say = [](const std::string& line) { std::fprintf(stderr, "%s\n", line.c_str()); },
          .stop = [] { return stop_asked != 0; }};
}

}  // namespace lwm::app
