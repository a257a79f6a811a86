#pragma once

#include <algorithm>
#include <functional>
#include <string>
#include <type_traits>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/text.h"
#include "lwm/config/fields.h"
#include "lwm/config/toml.h"

namespace lwm::config {

// What every kind of recipe shares. A Recipe is a struct whose ForEachSection(visit) names its
// sections, and whose sections name their fields with ForEachField (see train_config.h).

// Refuses names of `values` that are not in `known`, naming the nearest; so a misspelt key never
// means its default. `what` is "section" or "key in [x]:"; `place` begins the message.
inline void RequireKnownNames(const Json& values, const std::string& place,
                              const std::vector<std::string>& known, const std::string& what,
                              const std::string& help_command) {
  for (const auto& [name, value] : values.items()) {
    if (std::find(known.begin(), known.end(), name) != known.end()) continue;
    const std::string nearest = NearestName(name, known);
    throw Error(ErrorCode::kInvalidArgument,
                Cat(place, "unknown ", what, " '", name, "'",
                    nearest.empty() ? Cat("; see ", help_command)
                                    : Cat("; did you mean '", nearest, "'?")));
  }
}

template <class Section>
std::vector<std::string> FieldNames(Section& section) {
  std::vector<std::string> names;
  section.ForEachField(
      [&](const char* name, auto&, const Limits&, const char*) { names.emplace_back(name); });
  return names;
}

// Sets what the document holds. Throws Error(kInvalidArgument) naming file, line and key.
template <class Recipe>
void ApplyDocument(const TomlDocument& document, const std::string& where,
                   const std::string& help_command, Recipe& recipe) {
  const auto place_of = [&](const std::string& key) {
    const auto line = document.line_of.find(key);
    return line == document.line_of.end() ? where + ": " : Cat(where, ":", line->second, ": ");
  };
  std::vector<std::string> sections;
  recipe.ForEachSection([&](const char* name, auto&, const char*) { sections.emplace_back(name); });
  for (const auto& [name, value] : document.values.items()) {
    RequireKnownNames(Json{{name, value}}, place_of(name), sections, "section", help_command);
    LWM_REQUIRE(value.is_object(), place_of(name), "'", name, "' is a section: write [", name, "]");
  }
  recipe.ForEachSection([&](const char* section_name, auto& section, const char*) {
    if (!document.values.contains(section_name)) return;
    const Json& values = document.values.at(section_name);
    const std::vector<std::string> known = FieldNames(section);
    for (const auto& [name, value] : values.items())
      RequireKnownNames(Json{{name, value}}, place_of(Cat(section_name, ".", name)), known,
                        Cat("key in [", section_name, "]:"), help_command);
    section.ForEachField([&](const char* name, auto& field, const Limits& limits, const char*) {
      if (!values.contains(name)) return;
      const std::string key = Cat(section_name, ".", name);
      SetField(place_of(key) + key, values.at(name), limits, field);
    });
  });
}

// "section.key=value", as --set gives it. A field of text takes its value literally: --set
// train.sample_prompt=42.
template <class Recipe>
void ApplyOverride(const std::string& text, const std::string& help_command, Recipe& recipe) {
  const size_t equals = text.find('=');
  const size_t dot = text.substr(0, equals).find('.');
  LWM_REQUIRE(equals != std::string::npos && dot != std::string::npos, "--set ", text,
              ": want section.key=value, as in --set train.steps=100");
  TomlDocument document;
  const std::string section = text.substr(0, dot);
  const std::string name = text.substr(dot + 1, equals - dot - 1);
  Json value = ParseTomlValue(text.substr(equals + 1));
  recipe.ForEachSection([&](const char* section_name, auto& fields, const char*) {
    fields.ForEachField([&](const char* field_name, auto& field, const Limits&, const char*) {
      if (section == section_name && name == field_name &&
          std::is_same_v<std::decay_t<decltype(field)>, std::string> && !value.is_string())
        value = text.substr(equals + 1);
    });
  });
  document.values = {{section, {{name, value}}}};
  ApplyDocument(document, "--set " + text, help_command, recipe);
}

// All settings, {"section": {"key": value}}; reading it back gives the same recipe.
template <class Recipe>
Json RecipeToJson(Recipe recipe) {
  Json json = Json::object();
  recipe.ForEachSection([&](const char* section_name, auto& section, const char*) {
    section.ForEachField([&](const char* name, auto& field, const Limits&, const char*) {
      json[section_name][name] = field;
    });
  });
  return json;
}

// "section.key" of every field in order.
template <class Recipe>
std::vector<std::string> RecipeKeys() {
  std::vector<std::string> keys;
  Recipe().ForEachSection([&](const char* section_name, auto& section, const char*) {
    for (const std::string& name : FieldNames(section))
      keys.push_back(Cat(section_name, ".", name));
  });
  return keys;
}

// One line a field: key, default and meaning.
template <class Section>
std::string SectionHelp(Section& section) {
  std::string text;
  section.ForEachField([&](const char* name, auto& field, const Limits& limits, const char* help) {
    std::string line = Cat("  ", name, " = ", FormatTomlValue(Json(field)));
    line.resize(std::max<size_t>(line.size() + 1, 41), ' ');
    std::string choices;
    for (const std::string& choice : limits.choices)
      choices += (choices.empty() ? " (" : " | ") + choice;
    text += line + help + (choices.empty() ? "" : choices + ")") + "\n";
  });
  return text;
}

// The help text: every section and its fields.
template <class Recipe>
std::string RecipeHelp() {
  std::string text;
  Recipe().ForEachSection([&](const char* section_name, auto& section, const char* about) {
    text += Cat("[", section_name, "]  ", about, "\n", SectionHelp(section));
  });
  return text;
}

}  // namespace lwm::config
