#include "arguments.h"

#include <algorithm>
#include <map>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm::app {
namespace {

std::map<const CLI::App*, Advice>& Advices() {
  static std::map<const CLI::App*, Advice> advices;
  return advices;
}

// The innermost command that the arguments name, and how it is called: "lwm vqgan encode".
std::pair<const CLI::App*, std::string> UsedCommand(const CLI::App& root) {
  const CLI::App* used = &root;
  std::string name = "lwm";
  while (!used->get_subcommands().empty()) {
    used = used->get_subcommands().front();
    name += " " + used->get_name();
  }
  return {used, name};
}

// "--model is required; see lwm generate --help"
std::string WithHelp(const CLI::App& root, const std::string& message) {
  return Cat(message, "; see ", UsedCommand(root).second, " --help");
}

// Subcommands and options of a command; those of its groups of options too.
std::vector<std::string> KnownNames(const CLI::App& command) {
  std::vector<std::string> known;
  for (const CLI::App* inner : command.get_subcommands({})) {
    if (!inner->get_name().empty()) {
      known.push_back(inner->get_name());
      continue;
    }
    const auto grouped = KnownNames(*inner);
    known.insert(known.end(), grouped.begin(), grouped.end());
  }
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames()) known.push_back("--" + name);
    if (option->get_lnames().empty()) known.push_back(option->get_name(true));
  }
  return known;
}

// The known name for a name misspelt, abbreviated ("--temp") or with one dash ("-prompt").
std::string NameMeant(const std::string& name, const std::vector<std::string>& known) {
  const auto has = [&](const std::string& wanted) {
    return std::find(known.begin(), known.end(), wanted) != known.end();
  };
  if (has("-" + name)) return "-" + name;
  for (const std::string& candidate : known)
    if (name.size() >= 5 && candidate.starts_with(name)) return candidate;
  return NearestName(name, known);
}

// "unknown argument '--promt'; did you mean '--prompt'?"
std::string ExplainUnknown(const CLI::App& root, std::string argument,
                           const std::vector<std::string>& arguments) {
  const CLI::App* used = UsedCommand(root).first;
  const auto known = KnownNames(*used);
  // "-prompt x" is read as -p rompt with an x too many.
  for (const std::string& given : arguments)
    if (given.size() > 2 && given[0] == '-' && given[1] != '-' &&
        std::find(known.begin(), known.end(), "-" + given) != known.end())
      argument = given;
  const size_t equals = argument.find('=');
  const std::string name = argument.substr(0, equals);
  std::string value = equals == std::string::npos ? "" : argument.substr(equals + 1);
  const auto at = std::find(arguments.begin(), arguments.end(), argument);
  if (equals == std::string::npos && at != arguments.end() && at + 1 != arguments.end())
    value = *(at + 1);

  const std::string message = Cat("unknown argument '", argument, "'");
  const auto advice = Advices().find(used);
  const auto advise = [&](bool exact) {
    return advice == Advices().end() ? "" : advice->second(name, value, exact);
  };
  if (const std::string text = advise(true); !text.empty()) return Cat(message, "; ", text);
  const std::string meant = NameMeant(name, known);
  if (!meant.empty()) return Cat(message, "; did you mean '", meant, "'?");
  if (const std::string text = advise(false); !text.empty()) return Cat(message, "; ", text, "?");
  return WithHelp(root, message);
}

}  // namespace

void SetAdvice(const CLI::App& command, Advice advice) { Advices()[&command] = std::move(advice); }

std::string ExplainParseError(const CLI::App& root, const CLI::ParseError& error,
                              const std::vector<std::string>& arguments) {
  // A misspelt flag is the likelier cause of a missing one.
  const auto extras = root.remaining(true);
  if (!extras.empty()) return ExplainUnknown(root, extras.front(), arguments);
  return WithHelp(root, error.what());
}

}  // namespace lwm::app
