#pragma once

#include <filesystem>
#include <nlohmann/json.hpp>
#include <string>
#include <string_view>

namespace lwm {

using Json = nlohmann::json;

// Parses one JSON document. `where` names the source in the error (a path, "line 3 of x.jsonl").
// Throws Error(kCorruptData) on a syntax error, on invalid UTF-8 and beyond 256 levels of nesting.
Json ParseJson(std::string_view text, const std::string& where);

// Throws Error(kNotFound) if the file cannot be read, Error(kCorruptData) as ParseJson does.
Json ReadJsonFile(const std::filesystem::path& path);

// object[key] as T. Throws Error(kCorruptData) that names `where` and the key if it is absent or of
// another type; the second form gives `otherwise` when it is absent or null.
template <class T>
T JsonGet(const Json& object, const std::string& key, const std::string& where);
template <class T>
T JsonGet(const Json& object, const std::string& key, const std::string& where, const T& otherwise);

[[noreturn]] void ThrowJsonField(const std::string& where, const std::string& key,
                                 const std::string& problem);

template <class T>
T JsonGet(const Json& object, const std::string& key, const std::string& where) {
  if (!object.is_object() || !object.contains(key)) ThrowJsonField(where, key, "is missing");
  try {
    return object.at(key).get<T>();
  } catch (const Json::exception&) {
    ThrowJsonField(where, key, "has the wrong type: " + object.at(key).dump().substr(0, 60));
  }
}

template <class T>
T JsonGet(const Json& object, const std::string& key, const std::string& where,
          const T& otherwise) {
  if (!object.is_object() || !object.contains(key) || object.at(key).is_null()) return otherwise;
  return JsonGet<T>(object, key, where);
}

}  // namespace lwm
