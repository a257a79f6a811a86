#pragma once

#include <string>

#include "lwm/jinja/budget.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// Parts of values. All throw Failure where Python raises.

// value.name: a method, an attribute or an entry; undefined without.
Value Attribute(const Value& value, const std::string& name);
Value Item(const Value& value, const Value& key, Budget& budget);  // value[key]
// value[begin:end:step]; undefined bounds are absent.
Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Budget& budget);

}  // namespace lwm::jinja
