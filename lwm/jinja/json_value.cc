#include "lwm/jinja/json_value.h"

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/jinja/failure.h"

namespace lwm::jinja {
namespace {

Value Converted(const Json& json, bool foreign) {
  switch (json.type()) {
    case Json::value_t::boolean:
      return Value::Of(json.get<bool>());
    case Json::value_t::number_unsigned:
      if (json.get<uint64_t>() > INT64_MAX) return Value::Of(json.get<double>());
      return Value::Of(json.get<int64_t>());
    case Json::value_t::number_integer:
      return Value::Of(json.get<int64_t>());
    case Json::value_t::number_float:
      return Value::Of(json.get<double>());
    case Json::value_t::string:
      return Value::Of(Text(json.get<std::string>(), foreign));
    case Json::value_t::array: {
      std::vector<Value> items;
      for (const Json& item : json) items.push_back(Converted(item, foreign));
      return Value::OfList(std::move(items));
    }
    case Json::value_t::object: {
      std::vector<std::pair<Value, Value>> entries;
      for (const auto& [key, value] : json.items())
        entries.emplace_back(Value::Of(Text(key, foreign)), Converted(value, foreign));
      return Value::OfDict(std::move(entries));
    }
    default:
      return Value::OfNone();
  }
}

}  // namespace

Value ValueOf(const Json& json, bool foreign) {
  try {
    return Converted(json, foreign);
  } catch (const Failure& failure) {
    throw Error(ErrorCode::kInvalidArgument, failure.what());
  }
}

}  // namespace lwm::jinja
