#include "lwm/base/json.h"

#include "lwm/base/error.h"
#include "lwm/base/file.h"

namespace lwm {
namespace {

// dump() and walks over the tree recurse once per level: a hostile file must not use up the stack.
constexpr int kMaxDepth = 256;

}  // namespace

Json ParseJson(std::string_view text, const std::string& where) {
  const auto limit_depth = [&](int depth, Json::parse_event_t, Json&) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, depth <= kMaxDepth, where, ": JSON nested deeper than ",
                   kMaxDepth, " levels");
    return true;
  };
  try {
    return Json::parse(text.begin(), text.end(), limit_depth);
  } catch (const Json::exception& error) {
    throw Error(ErrorCode::kCorruptData, Cat(where, ": not valid JSON: ", error.what()));
  }
}

Json ReadJsonFile(const std::filesystem::path& path) {
  return ParseJson(ReadFile(path), path.string());
}

void ThrowJsonField(const std::string& where, const std::string& key, const std::string& problem) {
  throw Error(ErrorCode::kCorruptData, Cat(where, ": field \"", key, "\" ", problem));
}

}  // namespace lwm
