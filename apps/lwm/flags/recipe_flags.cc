#include "flags/recipe_flags.h"

#include <unistd.h>

#include <csignal>
#include <cstdio>
#include <cstdlib>
#include <sstream>
#include <string_view>

#include "arguments.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/config/recipe.h"

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

// "a key of the recipe: --set train.steps=10" for "--steps 10".
std::string AsSetting(const std::vector<std::string>& keys, std::string name,
                      const std::string& value, bool exact) {
  if (!name.starts_with("--")) return "";
  name.erase(0, 2);
  std::string text;
  for (const std::string& key :
       exact ? config::KeysNamed(name, keys) : config::KeysLike(name, keys))
    text += Cat(text.empty() ? "" : " or ", "--set ", key, "=", value.empty() ? "VALUE" : value);
  return text.empty() ? "" : (exact ? "a key of the recipe: " : "did you mean ") + text;
}

// LWM_SET holds settings between spaces that win over all others.
void AddFromEnvironment(std::vector<std::string>& overrides) {
  const char* text = std::getenv("LWM_SET");
  if (!text) return;
  std::istringstream settings(text);
  for (std::string setting; settings >> setting;) overrides.push_back(setting);
}

}  // namespace

void AddRecipeCommand(CLI::App& command, const RecipeKind& kind, const std::string& examples,
                      const std::function<void(RecipeFlags& flags)>& run) {
  auto flags = std::make_shared<RecipeFlags>();
  command.add_option("recipe,-c,--config", flags->recipe, "the recipe, a TOML file");
  command.add_option("--set", flags->overrides, "section.key=value, over the recipe")
      ->take_all()
      ->allow_extra_args(false);
  command.add_flag("--keys", flags->show_keys, "print the recipe's keys with defaults, and end");
  command.add_flag("--template", flags->show_template,
                   "print a recipe with every key, its default and a comment, and end");
  command.add_option("--log-file", flags->log_file,
                     "also append what is said here, each line with its time (UTC)");
  AddRunFlags(command, flags->run);
  AddExamples(command, Cat(examples, kAboutStopping, "\nKeys of a recipe with their defaults (",
                           kind.name, " --template prints them as a recipe):\n", kind.help));
  SetAdvice(command,
            [keys = kind.keys](const std::string& name, const std::string& value, bool exact) {
              return AsSetting(keys, name, value, exact);
            });
  command.callback([&command, flags, kind, run] {
    if (flags->show_keys || flags->show_template) {
      std::fputs((flags->show_keys ? kind.help : kind.make_template()).c_str(), stdout);
      return;
    }
    LWM_REQUIRE(!flags->recipe.empty(), "a recipe is required: ", kind.name,
                " RECIPE.toml; --template prints one, and see ", kind.name, " --help");
    if (command.count("--seed") > 0)
      flags->overrides.push_back(Cat("train.seed=", flags->run.seed));
    if (command.count("--dtype") > 0)
      flags->overrides.push_back("train.dtype=" + config::NameOf(flags->run.dtype));
    AddFromEnvironment(flags->overrides);
    try {
      run(*flags);
    } catch (const std::exception& error) {
      if (flags->log) flags->log->Add(Cat("error: ", error.what()));
      throw;
    }
  });
}

run::RunHooks MakeRunHooks(RunContext& context, RecipeFlags& flags) {
  if (context.is_root() && !flags.log_file.empty()) {
    flags.log = std::make_shared<LogFile>(flags.log_file);
    flags.log->Add(Cat(flags.recipe, " on ", CountOf(context.world().size(), "rank")));
  }
  answers = context.is_root() ? 1 : 0;
  struct sigaction action = {};
  action.sa_handler = AskToStop;
  action.sa_flags = static_cast<int>(SA_RESETHAND) | SA_RESTART;
  for (const int signal : {SIGTERM, SIGINT, SIGUSR1}) sigaction(signal, &action, nullptr);
  return {.log =
              [log = flags.log](const std::string& line) {
                std::fprintf(stderr, "%s\n", line.c_str());
                if (log) log->Add(line);
              },
          .stop = [] { return stop_asked != 0; }};
}

}  // namespace lwm::app
