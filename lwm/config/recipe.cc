#include "lwm/config/recipe.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

#include <algorithm>

namespace lwm::config {
namespace {

std::string Tail(const std::string& key) { return key.substr(key.rfind('.') + 1); }

bool Contains(const std::vector<std::string>& names, const std::string& name) {
  return std::find(names.begin(), names.end(), name) != names.end();
}

}  // namespace

std::vector<std::string> KeysNamed(std::string name, const std::vector<std::string>& keys) {
  std::replace(name.begin(), name.end(), '-', '_');
  if (Contains(keys, name)) return {name};
  std::vector<std::string> found;
  for (const std::string& key : keys)
    if (Tail(key) == Tail(name)) found.push_back(key);
  return found;
}

std::vector<std::string> KeysLike(std::string name, const std::vector<std::string>& keys) {
  std::replace(name.begin(), name.end(), '-', '_');
  if (const auto found = KeysNamed(name, keys); !found.empty()) return found;
  const size_t dot = name.find('.');
  if (dot != std::string::npos)
    if (const std::string nearest = NearestName(name, keys); !nearest.empty()) return {nearest};
  std::vector<std::string> tails;
  for (const std::string& key : keys) tails.push_back(Tail(key));
  const std::string nearest = NearestName(Tail(name), tails);
  return nearest.empty() ? std::vector<std::string>() : KeysNamed(nearest, keys);
}

std::string DidYouMean(const std::vector<std::string>& keys) {
  return fmt::format("; did you mean {}?", fmt::join(keys, " or "));
}

void RequireKnownNames(const Json& values, const std::string& place, const KnownNames& known) {
  for (const auto& [name, value] : values.items()) {
    if (Contains(known.names, name)) continue;
    const std::string nearest = NearestName(name, known.names);
    const auto elsewhere = KeysNamed(name, known.recipe_keys);
    std::string advice = "; see " + known.help_command;
    if (!elsewhere.empty())
      advice = DidYouMean(elsewhere);
    else if (!nearest.empty())
      advice = Cat("; did you mean '", nearest, "'?");
    throw Error(ErrorCode::kInvalidArgument,
                Cat(place, "unknown ", known.what, " '", name, "'", advice));
  }
}

SettingText ParseSetting(const std::string& text, const std::vector<std::string>& keys) {
  const size_t equals = text.find('=');
  const std::string key = text.substr(0, equals);
  const size_t dot = key.find('.');
  if (equals != std::string::npos && dot != std::string::npos)
    return {key.substr(0, dot), key.substr(dot + 1), text.substr(equals + 1)};
  const auto meant = KeysLike(key, keys);
  throw Error(
      ErrorCode::kInvalidArgument,
      Cat("--set ", text, ": want section.key=value, as in --set ",
          meant.empty() ? "train.steps" : meant.front(), "=",
          equals == std::string::npos ? meant.empty() ? "100" : "VALUE" : text.substr(equals + 1)));
}

std::string ChoicesOf(const Limits& limits) {
  if (limits.choices.empty()) return "";
  return fmt::format(" ({})", fmt::join(limits.choices, " | "));
}

std::string Commented(const std::string& text) {
  std::string out;
  for (size_t at = 0, end; at < text.size(); at = end + 1) {
    end = std::min(text.find('\n', at), text.size());
    out += Cat(end == at ? "#" : "# ", text.substr(at, end - at), "\n");
  }
  return out;
}

}  // namespace lwm::config
