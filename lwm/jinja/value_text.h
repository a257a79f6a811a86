#pragma once

#include <cstdint>
#include <string>

#include "lwm/jinja/text.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// As Python's repr: strings in quotes.
Text Repr(const Value& value);

// Python's json.dumps without escapes of characters beyond ASCII. indent < 0: on one line. Throws
// Failure naming the kind of a value that JSON does not have.
struct JsonStyle {
  int64_t indent = -1;
  bool sort_keys = false;
  std::string item_separator = ", ", key_separator = ": ";
};
Text JsonText(const Value& value, const JsonStyle& style);

}  // namespace lwm::jinja
