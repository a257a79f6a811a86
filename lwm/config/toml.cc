#include "lwm/config/toml.h"

#include <toml++/toml.h>

#include <sstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"

namespace lwm::config {
namespace {

Json ToJson(const toml::node& node, const std::string& key, TomlDocument& document);

Json TableToJson(const toml::table& table, const std::string& prefix, TomlDocument& document) {
  Json object = Json::object();
  for (const auto& [name, node] : table) {
    const std::string key = prefix + std::string(name.str());
    document.line_of[key] = static_cast<int>(name.source().begin.line);
    object[std::string(name.str())] = ToJson(node, key, document);
  }
  return object;
}

template <class T>
std::string Printed(const T& value) {
  std::ostringstream out;
  out << value;
  return out.str();
}

Json ToJson(const toml::node& node, const std::string& key, TomlDocument& document) {
  switch (node.type()) {
    case toml::node_type::table:
      return TableToJson(*node.as_table(), key + ".", document);
    case toml::node_type::array: {
      Json array = Json::array();
      for (const toml::node& entry : *node.as_array())
        array.push_back(ToJson(entry, key, document));
      return array;
    }
    case toml::node_type::string:
      return node.as_string()->get();
    case toml::node_type::integer:
      return node.as_integer()->get();
    case toml::node_type::floating_point:
      return node.as_floating_point()->get();
    case toml::node_type::boolean:
      return node.as_boolean()->get();
    case toml::node_type::date:
      return Printed(node.as_date()->get());
    case toml::node_type::time:
      return Printed(node.as_time()->get());
    case toml::node_type::date_time:
      return Printed(node.as_date_time()->get());
    case toml::node_type::none:
      break;
  }
  return nullptr;
}

// JSON's escapes for quotes, backslash, control characters and \uXXXX are TOML's too.
std::string QuotedString(const std::string& text) {
  return Json(text).dump(-1, ' ', false, Json::error_handler_t::replace);
}

}  // namespace

TomlDocument ParseToml(std::string_view text, const std::string& where) {
  try {
    TomlDocument document;
    document.values = TableToJson(toml::parse(text), "", document);
    return document;
  } catch (const toml::parse_error& error) {
    throw Error(ErrorCode::kInvalidArgument,
                Cat(where, ":", error.source().begin.line, ": ", error.description()));
  }
}

TomlDocument ReadTomlFile(const std::filesystem::path& file) {
  return ParseToml(ReadFile(file), file.string());
}

Json ParseTomlValue(std::string_view text) {
  try {
    TomlDocument document;
    const toml::table table = toml::parse(Cat("value = ", text, "\n"));
    const toml::node* value = table.get("value");
    if (table.size() == 1 && value != nullptr) return ToJson(*value, "value", document);
  } catch (const toml::parse_error&) {  // not TOML: a bare string
  }
  return std::string(text);
}

std::string FormatTomlValue(const Json& value) {
  if (value.is_string()) return QuotedString(value.get<std::string>());
  if (!value.is_array()) return value.dump();
  std::string text = "[";
  for (const Json& entry : value) text += (text.size() > 1 ? ", " : "") + FormatTomlValue(entry);
  return text + "]";
}

}  // namespace lwm::config
