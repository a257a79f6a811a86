#pragma once

#include "lwm/base/json.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// The value of JSON; `foreign` says that its strings are. Keys in Json's order. Throws
// Error(kInvalidArgument) when it is nested too deeply.
Value ValueOf(const Json& json, bool foreign);

}  // namespace lwm::jinja
