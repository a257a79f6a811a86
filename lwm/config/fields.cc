#include "lwm/config/fields.h"

#include <fmt/format.h>
#include <fmt/ranges.h>

namespace lwm::config {
namespace {

[[noreturn]] void ThrowWanted(const std::string& key, const std::string& wanted,
                              const Json& value) {
  throw Error(ErrorCode::kInvalidArgument,
              Cat(key, ": want ", wanted, ", got ", ShortValue(value)));
}

void RequireInRange(const std::string& key, const Json& value, double number,
                    const Limits& limits) {
  if (number >= limits.low && number <= limits.high) return;
  ThrowWanted(key,
              std::isinf(limits.high) ? fmt::format("at least {}", limits.low)
                                      : fmt::format("{} to {}", limits.low, limits.high),
              value);
}

}  // namespace

std::string ShortValue(const Json& value) {
  if (value.is_number_float() && !std::isfinite(value.get<double>()))
    return fmt::format("{}", value.get<double>());
  std::string text = value.dump(-1, ' ', false, Json::error_handler_t::replace);
  if (text.size() > 60) text = text.substr(0, 57) + "...";
  return text;
}

void SetField(const std::string& key, const Json& value, const Limits& limits, int64_t& field) {
  if (!value.is_number_integer()) ThrowWanted(key, "a whole number", value);
  const auto number = value.get<int64_t>();
  RequireInRange(key, value, static_cast<double>(number), limits);
  field = number;
}

void SetField(const std::string& key, const Json& value, const Limits& limits, double& field) {
  if (!value.is_number()) ThrowWanted(key, "a number", value);
  const auto number = value.get<double>();
  if (!std::isfinite(number)) ThrowWanted(key, "a finite number", value);
  RequireInRange(key, value, number, limits);
  field = number;
}

void SetField(const std::string& key, const Json& value, const Limits&, bool& field) {
  if (!value.is_boolean()) ThrowWanted(key, "true or false", value);
  field = value.get<bool>();
}

void SetField(const std::string& key, const Json& value, const Limits& limits, std::string& field) {
  if (!value.is_string()) ThrowWanted(key, "a string", value);
  const auto text = value.get<std::string>();
  const auto& choices = limits.choices;
  if (!choices.empty() && std::find(choices.begin(), choices.end(), text) == choices.end())
    ThrowWanted(key, fmt::format("one of {}", fmt::join(choices, ", ")), value);
  field = text;
}

void SetField(const std::string& key, const Json& value, const Limits& limits, Dtype& field) {
  std::string name;
  SetField(key, value, limits, name);
  field = ParseDtype(name);
}

}  // namespace lwm::config
