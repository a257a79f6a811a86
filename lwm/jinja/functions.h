#pragma once

#include <optional>
#include <string>

#include "lwm/jinja/arguments.h"
#include "lwm/jinja/budget.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// Functions, filters and tests of templates. All throw Failure naming the callee; each refuses
// arguments that it does not know. Defined in functions.cc where no other file is named.

// Methods that leave their value as it is, of strings, lists and dicts, and loop.cycle.
bool HasMethod(const Value& self, const std::string& name);
Value CallMethod(const Value& self, Arguments arguments, Budget& budget);
// Of strings, in text_methods.cc.
Value CallTextMethod(const Text& self, Arguments arguments, Budget& budget);
bool HasTextMethod(const std::string& name);

// value | filter, in filters.cc
Value CallFilter(const Value& value, Arguments arguments, Budget& budget);

// Filters over lists: map, select, sort and so on. Nothing: it is none of those. In
// list_filters.cc.
std::optional<Value> CallListFilter(const Value& value, Arguments& arguments, Budget& budget);

// value is test, in is_tests.cc
bool CallTest(const Value& value, Arguments arguments, Budget& budget);

// The global functions but raise_exception; `now` in seconds since 1970.
bool IsFunction(const std::string& name);
Value CallFunction(Arguments arguments, int64_t now, Budget& budget);

}  // namespace lwm::jinja
