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

// Functions for every kind of recipe. A Recipe is a struct whose ForEachSection(visit) names its
// sections, and whose sections name their fields with ForEachField (see train_config.h).

// The entries of `keys` ("section.key") that a name without its section, or with a wrong one, can
// mean: "steps", "model.steps", "run-folder". KeysLike falls back to the nearest spelling. Empty:
// none.
std::vector<std::string> KeysNamed(std::string name, const std::vector<std::string>& keys);
std::vector<std::string> KeysLike(std::string name, const std::vector<std::string>& keys);
// "; did you mean data.scale or pictures.scale?"
std::string DidYouMean(const std::vector<std::string>& keys);

// Refuses names of `values` that are not in `known.names`; the message names a key of another
// section with that name, or the nearest name. So a misspelt key is never ignored. `place` begins
// the message.
struct KnownNames {
  std::vector<std::string> names;
  std::string what;                      // "section" or "key in [x]:"
  std::vector<std::string> recipe_keys;  // "section.key" of all sections
  std::string help_command;
};
void RequireKnownNames(const Json& values, const std::string& place, const KnownNames& known);

// "section.key=value" in parts. Throws Error(kInvalidArgument) with the key of `keys` meant.
struct SettingText {
  std::string section, name, value;
};
SettingText ParseSetting(const std::string& text, const std::vector<std::string>& keys);

// " (a | b)", or "" where any text will do.
std::string ChoicesOf(const Limits& limits);

// The lines behind "# ".
std::string Commented(const std::string& text);

template <class Section>
std::vector<std::string> FieldNames(Section& section) {
  std::vector<std::string> names;
  section.ForEachField(
      [&](const char* name, auto&, const Limits&, const char*) { names.emplace_back(name); });
  return names;
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

// Sets what the document holds. Throws Error(kInvalidArgument) naming file, line and key.
template <class Recipe>
void ApplyDocument(const TomlDocument& document, const std::string& where,
                   const std::string& help_command, Recipe& recipe) {
  const auto place_of = [&](const std::string& key) {
    const auto line = document.line_of.find(key);
    return line == document.line_of.end() ? where + ": " : Cat(where, ":", line->second, ": ");
  };
  const auto recipe_keys = RecipeKeys<Recipe>();
  std::vector<std::string> sections;
  recipe.ForEachSection([&](const char* name, auto&, const char*) { sections.emplace_back(name); });
  for (const auto& [name, value] : document.values.items()) {
    RequireKnownNames(Json{{name, value}}, place_of(name),
                      {sections, "section", recipe_keys, help_command});
    LWM_REQUIRE(value.is_object(), place_of(name), "'", name, "' is a section: write [", name, "]");
  }
  recipe.ForEachSection([&](const char* section_name, auto& section, const char*) {
    if (!document.values.contains(section_name)) return;
    const Json& values = document.values.at(section_name);
    const std::vector<std::string> known = FieldNames(section);
    for (const auto& [name, value] : values.items())
      RequireKnownNames(Json{{name, value}}, place_of(Cat(section_name, ".", name)),
                        {known, Cat("key in [", section_name, "]:"), recipe_keys, help_command});
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
  const SettingText setting = ParseSetting(text, RecipeKeys<Recipe>());
  TomlDocument document;
  Json value = ParseTomlValue(setting.value);
  recipe.ForEachSection([&](const char* section_name, auto& fields, const char*) {
    fields.ForEachField([&](const char* field_name, auto& field, const Limits&, const char*) {
      using Field = std::decay_t<decltype(field)>;
      constexpr bool kIsText = std::is_same_v<Field, std::string> || std::is_same_v<Field, Dtype>;
      if (setting.section == section_name && setting.name == field_name && kIsText &&
          !value.is_string())
        value = setting.value;
    });
  });
  document.values = {{setting.section, {{setting.name, value}}}};
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

// One line a field: key, default and meaning.
template <class Section>
std::string SectionHelp(Section& section) {
  std::string text;
  section.ForEachField([&](const char* name, auto& field, const Limits& limits, const char* help) {
    std::string line = Cat("  ", name, " = ", FormatTomlValue(Json(field)));
    line.resize(std::max<size_t>(line.size() + 1, 41), ' ');
    text += line + help + ChoicesOf(limits) + "\n";
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

template <class T>
struct EntryOf {
  static constexpr bool is_table = false;
};
template <Table T>
struct EntryOf<std::vector<T>> {
  static constexpr bool is_table = true;
  using Type = T;
};

// A section as TOML: every key with its default, after a comment with its description. Lists of
// tables are written as comments at the end.
template <class Section>
std::string SectionTemplate(const std::string& head, Section& section) {
  std::string text = head + "\n", tables;
  section.ForEachField([&](const char* name, auto& field, const Limits& limits, const char* help) {
    using Entry = EntryOf<std::decay_t<decltype(field)>>;
    if constexpr (Entry::is_table) {
      typename Entry::Type entry;
      const std::string key = Cat(head.substr(1, head.size() - 2), ".", name);
      tables += Commented(Cat(help, "\n", SectionTemplate(Cat("[[", key, "]]"), entry)));
    } else {
      text += Commented(help + ChoicesOf(limits)) +
              Cat(name, " = ", FormatTomlValue(Json(field)), "\n");
    }
  });
  return text + tables;
}

// A recipe with every key at its default; it reads back as such.
template <class Recipe>
std::string RecipeTemplate(const std::string& command) {
  std::string text = Commented(
      Cat("Every key of a recipe for `", command,
          "` with its default. Set what the run needs; what is left out is the default."));
  Recipe().ForEachSection([&](const char* name, auto& section, const char* about) {
    text += "\n" + Commented(about) + SectionTemplate(Cat("[", name, "]"), section);
  });
  return text;
}

}  // namespace lwm::config
