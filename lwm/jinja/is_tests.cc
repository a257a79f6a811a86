// value is test
#include <algorithm>
#include <string_view>

#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

using Test = bool (*)(const Value& value);

bool IsText(const Value& value) { return value.text() != nullptr; }
bool HasItems(const Value& value) {
  return value.text() || value.list() || value.dict() || value.is_undefined();
}

bool IsMultiple(const Value& value, int64_t of, const std::string& test) {
  if (!value.is_whole()) Fail("\"is ", test, "\" wants an integer, not ", value.kind());
  if (of == 0) Fail("\"is ", test, "\" by zero");
  return of == -1 || value.whole() % of == 0;
}

template <Case to>
bool HasCase(const Value& value) {
  const Text text = value.ToText();
  const Case other = to == Case::kUpper ? Case::kLower : Case::kUpper;
  return ChangeCase(text, to).bytes() == text.bytes() &&
         ChangeCase(text, other).bytes() != text.bytes();
}

struct Entry {
  std::string_view name;
  Test test;
};

constexpr Entry kTests[] = {
    {"defined", [](const Value& v) { return !v.is_undefined(); }},
    {"undefined", [](const Value& v) { return v.is_undefined(); }},
    {"none", [](const Value& v) { return v.is_none(); }},
    {"string", IsText},
    {"mapping", [](const Value& v) { return v.dict() != nullptr; }},
    {"iterable", HasItems},
    {"sequence", HasItems},
    {"number", [](const Value& v) { return v.is_number(); }},
    {"integer", [](const Value& v) { return v.is_int(); }},
    {"float", [](const Value& v) { return v.is_float(); }},
    {"boolean", [](const Value& v) { return v.is_bool(); }},
    {"true", [](const Value& v) { return v.is_bool() && v.IsTrue(); }},
    {"false", [](const Value& v) { return v.is_bool() && !v.IsTrue(); }},
    {"callable", [](const Value& v) { return v.callable() != nullptr; }},
    {"odd", [](const Value& v) { return !IsMultiple(v, 2, "odd"); }},
    {"even", [](const Value& v) { return IsMultiple(v, 2, "even"); }},
    {"upper", HasCase<Case::kUpper>},
    {"lower", HasCase<Case::kLower>},
};

struct Comparison {
  std::string_view name;
  const char* operator_name;
};

constexpr Comparison kComparisons[] = {
    {"equalto", "=="},    {"eq", "=="},      {"==", "=="}, {"ne", "!="},
    {"lt", "<"},          {"lessthan", "<"}, {"le", "<="}, {"gt", ">"},
    {"greaterthan", ">"}, {"ge", ">="},      {"in", "in"},
};

}  // namespace

bool CallTest(const Value& value, Arguments arguments, Budget& budget) {
  const std::string name = arguments.callee();
  if (value.text()) budget.Step(1 + value.text()->size() / 64);
  for (const Entry& entry : kTests) {
    if (entry.name != name) continue;
    arguments.Accept({});
    return entry.test(value);
  }
  for (const Comparison& comparison : kComparisons) {
    if (comparison.name != name) continue;
    arguments.Accept({"other"});
    return Compares(comparison.operator_name, value, arguments.At(0), budget);
  }
  if (name == "divisibleby") {
    arguments.Accept({"num"});
    return IsMultiple(value, arguments.WholeAt(0, 0), name);
  }
  if (name == "sameas") {
    arguments.Accept({"other"});
    return std::string_view(value.kind()) == arguments.At(0).kind() &&
           value.Equals(arguments.At(0));
  }
  Fail("the test \"", name, "\" is not supported");
}

}  // namespace lwm::jinja
