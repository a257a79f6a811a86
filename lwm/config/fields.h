#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/base/text.h"
#include "lwm/config/dtype.h"

namespace lwm::config {

// Allowed values of a field. Numbers: a closed range. Strings: one of the choices, when there are
// any. Lists: the same for every entry.
struct Limits {
  double low = -std::numeric_limits<double>::infinity();
  double high = std::numeric_limits<double>::infinity();
  std::vector<std::string> choices;
};
inline Limits AtLeast(double low) { return {low, std::numeric_limits<double>::infinity(), {}}; }
inline Limits Between(double low, double high) { return {low, high, {}}; }
inline Limits OneOf(std::vector<std::string> choices) {
  Limits limits;
  limits.choices = std::move(choices);
  return limits;
}

// "5", "0.1", "\"x\"": at most 60 characters of the value, for messages.
std::string ShortValue(const Json& value);

// Sets the field from JSON after checking type and limits. Whole numbers are accepted where a real
// one is wanted. Throws Error(kInvalidArgument) that begins with `key` and says what is wanted.
void SetField(const std::string& key, const Json& value, const Limits& limits, int64_t& field);
void SetField(const std::string& key, const Json& value, const Limits& limits, double& field);
void SetField(const std::string& key, const Json& value, const Limits& limits, bool& field);
void SetField(const std::string& key, const Json& value, const Limits& limits, std::string& field);
void SetField(const std::string& key, const Json& value, const Limits& limits, Dtype& field);

// A table whose keys are the fields of a struct, listed by its ForEachField as in train_config.h.
template <class T>
concept Table = requires(T table) {
  table.ForEachField([](const char*, auto&, const Limits&, const char*) {});
};

template <Table T>
void SetField(const std::string& key, const Json& value, const Limits& limits, T& field);

// A list; a single value counts as a list of one. Entries that are tables are named by their
// number: data.source[0].share.
template <class T>
void SetField(const std::string& key, const Json& value, const Limits& limits,
              std::vector<T>& field) {
  const Json list = value.is_array() ? value : Json::array({value});
  std::vector<T> entries;
  for (const Json& entry : list) {
    T parsed{};
    SetField(Table<T> ? Cat(key, "[", entries.size(), "]") : key, entry, limits, parsed);
    entries.push_back(parsed);
  }
  field = std::move(entries);
}

template <Table T>
void SetField(const std::string& key, const Json& value, const Limits&, T& field) {
  LWM_REQUIRE(value.is_object(), key, ": want a table, got ", ShortValue(value));
  std::vector<std::string> known;
  field.ForEachField(
      [&](const char* name, auto&, const Limits&, const char*) { known.emplace_back(name); });
  for (const auto& [name, entry] : value.items()) {
    const std::string nearest = NearestName(name, known);
    LWM_REQUIRE(std::find(known.begin(), known.end(), name) != known.end(), key, ": unknown key '",
                name, "'", nearest.empty() ? "" : Cat("; did you mean '", nearest, "'?"));
  }
  field.ForEachField([&](const char* name, auto& entry, const Limits& limits, const char*) {
    if (value.contains(name)) SetField(Cat(key, ".", name), value.at(name), limits, entry);
  });
}

// For Json(table): an object of all its fields.
template <Table T>
void to_json(Json& json, const T& table) {
  json = Json::object();
  T copy = table;
  copy.ForEachField(
      [&](const char* name, auto& field, const Limits&, const char*) { json[name] = field; });
}

}  // namespace lwm::config
