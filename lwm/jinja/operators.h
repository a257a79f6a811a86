#pragma once

#include <string>
#include <vector>

#include "lwm/jinja/budget.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// Python's operators on values. All throw Failure naming operator and kinds where Python raises, or
// where a whole number leaves 64 bits.

Value Arithmetic(const std::string& name, const Value& a, const Value& b, Budget& budget);
Value Signed(const std::string& sign, const Value& value);

// str(value), paid for.
Text TextOf(const Value& value, Budget& budget);

// name: == != < <= > >= in "not in".
bool Compares(const std::string& name, const Value& a, const Value& b, Budget& budget);
int Order(const Value& a, const Value& b);  // < 0, 0, > 0; numbers or strings only

// The values that a loop visits: items, keys of a dict, characters; none if undefined.
std::vector<Value> ItemsOf(const Value& value, Budget& budget);
int64_t LengthOf(const Value& value);

}  // namespace lwm::jinja
