#pragma once

#include <algorithm>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/json.h"

namespace lwm::config {

// What a field may hold beyond its type. Numbers: a closed range. Strings: one of the choices, when
// there are any. Lists: every entry.
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

// A list; a single value counts as a list of one.
template <class T>
void SetField(const std::string& key, const Json& value, const Limits& limits,
              std::vector<T>& field) {
  const Json list = value.is_array() ? value : Json::array({value});
  std::vector<T> entries;
  for (const Json& entry : list) {
    T parsed{};
    SetField(key, entry, limits, parsed);
    entries.push_back(parsed);
  }
  field = std::move(entries);
}

}  // namespace lwm::config
