#pragma once

#include <filesystem>
#include <map>
#include <string>
#include <string_view>

#include "lwm/base/json.h"

namespace lwm::config {

// A TOML document as JSON values (dates become strings), with the line each dotted key stands on.
struct TomlDocument {
  Json values = Json::object();
  std::map<std::string, int> line_of;  // "train.steps" -> 12
};

// Throws Error(kInvalidArgument) "where:line: reason" on a syntax error.
TomlDocument ParseToml(std::string_view text, const std::string& where);
// Throws Error(kNotFound) if the file cannot be read.
TomlDocument ReadTomlFile(const std::filesystem::path& file);

// One value as it would stand after "key =". Text that is no TOML value is taken as a string, so
// that --set train.run_folder=runs/a needs no quotes.
Json ParseTomlValue(std::string_view text);

// The reverse: a value as it may stand after "key =".
std::string FormatTomlValue(const Json& value);

}  // namespace lwm::config
