// lwm completion: scripts that complete commands and flags in a shell. They are made from the
// commands themselves; scripts/install and the package put them where shells look.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "lwm/base/error.h"

namespace lwm::app {
namespace {

// A word that may follow "lwm vqgan encode", a subcommand or a flag, with its meaning.
struct Word {
  std::string text, help;
};
struct Place {
  std::string path;  // "lwm vqgan encode"
  std::vector<Word> commands, flags;
};

// Until the first of '.', ':', '(' and ';'; no quotes, as it stands between some.
std::string FirstPart(const std::string& help) {
  std::string text = help.substr(0, help.find_first_of(".:(;\n"));
  std::string plain;
  for (const char c : text)
    if (std::string("'\"`$\\[]").find(c) == std::string::npos) plain += c;
  return plain;
}

void AddFlags(const CLI::App& command, Place& place) {
  for (const CLI::Option* option : command.get_options()) {
    for (const std::string& name : option->get_lnames())
      place.flags.push_back({"--" + name, FirstPart(option->get_description())});
    for (const std::string& name : option->get_snames())
      place.flags.push_back({"-" + name, FirstPart(option->get_description())});
  }
}

// The command and all below it, `path` included.
void Walk(const CLI::App& command, const std::string& path, std::vector<Place>& places) {
  const size_t at = places.size();
  places.push_back({path, {}, {}});
  AddFlags(command, places[at]);
  for (const CLI::App* inner : command.get_subcommands({})) {
    if (inner->get_name().empty()) {
      AddFlags(*inner, places[at]);
    } else if (!inner->get_group().empty()) {
      places[at].commands.push_back({inner->get_name(), FirstPart(inner->get_description())});
      Walk(*inner, path + " " + inner->get_name(), places);
    }
  }
}

std::string Joined(const std::vector<Word>& words) {
  std::string text;
  for (const Word& word : words) text += (text.empty() ? "" : " ") + word.text;
  return text;
}

// The cases of a shell's `case "$path $word"` that step to a subcommand by setting `variable`.
std::string StepCases(const std::vector<Place>& places, const std::string& variable) {
  std::string text;
  for (const Place& place : places)
    for (const Word& word : place.commands)
      text += Cat("      '", place.path, " ", word.text, "') ", variable, "='", place.path, " ",
                  word.text, "' ;;\n");
  return text;
}

constexpr char kBashHead[] = R"(# bash completion for lwm
_lwm() {
  local word=${COMP_WORDS[COMP_CWORD]} path=lwm i
  for ((i = 1; i < COMP_CWORD; i++)); do
    case "$path ${COMP_WORDS[i]}" in
)";
constexpr char kBashMiddle[] = R"(    esac
  done
  local commands= flags=
  case "$path" in
)";
constexpr char kBashTail[] = R"(  esac
  case $word in
    -*) COMPREPLY=($(compgen -W "$flags" -- "$word")) ;;
    *) COMPREPLY=($(compgen -W "$commands" -- "$word"))
       [ -n "$commands" ] || COMPREPLY=($(compgen -f -- "$word")) ;;
  esac
}
complete -o filenames -F _lwm lwm
)";

void PrintBash(const std::vector<Place>& places) {
  std::string text = kBashHead + StepCases(places, "path") + kBashMiddle;
  for (const Place& place : places)
    text += Cat("    '", place.path, "') commands='", Joined(place.commands), "' flags='",
                Joined(place.flags), "' ;;\n");
  std::fputs((text + kBashTail).c_str(), stdout);
}

constexpr char kZshHead[] = R"(#compdef lwm
# zsh completion for lwm
_lwm() {
  local path_='lwm' i
  local -a commands flags
  for ((i = 2; i < CURRENT; i++)); do
    case "$path_ $words[i]" in
)";
constexpr char kZshTail[] = R"(  esac
  if [[ $words[CURRENT] == -* ]]; then
    _describe -o flag flags
  elif (( $#commands )); then
    _describe command commands
  else
    _files
  fi
}
_lwm "$@"
)";

std::string ZshList(const std::vector<Word>& words) {
  std::string text;
  for (const Word& word : words) text += Cat(" '", word.text, ":", word.help, "'");
  return text;
}

void PrintZsh(const std::vector<Place>& places) {
  std::string text = kZshHead + StepCases(places, "path_");
  text += "    esac\n  done\n  case \"$path_\" in\n";
  for (const Place& place : places)
    text += Cat("    '", place.path, "') commands=(", ZshList(place.commands), ") flags=(",
                ZshList(place.flags), ") ;;\n");
  std::fputs((text + kZshTail).c_str(), stdout);
}

constexpr char kFishHead[] = R"(# fish completion for lwm
function __lwm_at
  set -l path lwm
  for word in (commandline -opc)[2..]
    switch "$path $word"
)";

void PrintFish(const std::vector<Place>& places) {
  std::string text = kFishHead, rules;
  for (const Place& place : places) {
    const std::string when = Cat("complete -c lwm -n '__lwm_at \"", place.path, "\"'");
    for (const Word& word : place.commands) {
      text += Cat("      case '", place.path, " ", word.text, "'\n        set path '", place.path,
                  " ", word.text, "'\n");
      rules += Cat(when, " -f -a ", word.text, " -d '", word.help, "'\n");
    }
    for (const Word& flag : place.flags)
      rules += Cat(
          when,
          flag.text[1] == '-' ? Cat(" -l ", flag.text.substr(2)) : Cat(" -s ", flag.text.substr(1)),
          " -d '", flag.help, "'\n");
  }
  text += "    end\n  end\n  test \"$path\" = \"$argv[1]\"\nend\n";
  std::fputs((text + rules).c_str(), stdout);
}

}  // namespace

void AddCompletion(CLI::App& command) {
  auto shell = std::make_shared<std::string>();
  command.add_option("shell", *shell, "whose script to print")
      ->required()
      ->check(CLI::IsMember({"bash", "zsh", "fish"}));
  command.callback([&command, shell] {
    std::vector<Place> places;
    Walk(*command.get_parent(), "lwm", places);
    if (*shell == "bash") PrintBash(places);
    if (*shell == "zsh") PrintZsh(places);
    if (*shell == "fish") PrintFish(places);
  });
}

}  // namespace lwm::app
