#include "lwm/jinja/operators.h"

#include <algorithm>
#include <cmath>

#include "lwm/jinja/failure.h"

namespace lwm::jinja {
namespace {

[[noreturn]] void FailKinds(const std::string& name, const Value& a, const Value& b) {
  for (const Value* value : {&a, &b})
    if (value->is_undefined()) Fail("'", value->missing_name(), "' is undefined");
  Fail("\"", name, "\" between ", a.kind(), " and ", b.kind());
}

int64_t WholePower(int64_t base, int64_t exponent) {
  if (base == 0 || base == 1) return exponent == 0 ? 1 : base;
  if (base == -1) return exponent % 2 == 0 ? 1 : -1;
  int64_t result = 1;
  for (; exponent > 0; --exponent)
    if (__builtin_mul_overflow(result, base, &result)) Fail("a number leaves 64 bits");
  return result;
}

int64_t FloorDivide(int64_t a, int64_t b) {
  const int64_t quotient = a / b;
  return a % b != 0 && (a < 0) != (b < 0) ? quotient - 1 : quotient;
}

Value WholeArithmetic(const std::string& name, int64_t a, int64_t b) {
  int64_t result = 0;
  bool overflows = false;
  if (name == "+") {
    overflows = __builtin_add_overflow(a, b, &result);
  } else if (name == "-") {
    overflows = __builtin_sub_overflow(a, b, &result);
  } else if (name == "*") {
    overflows = __builtin_mul_overflow(a, b, &result);
  } else if (name == "**") {
    if (b < 0) return Value::Of(std::pow(static_cast<double>(a), static_cast<double>(b)));
    result = WholePower(a, b);
  } else {
    if (b == 0) Fail("a division by zero");
    overflows = a == INT64_MIN && b == -1;
    if (name == "/") return Value::Of(static_cast<double>(a) / static_cast<double>(b));
    if (!overflows) result = name == "//" ? FloorDivide(a, b) : a - FloorDivide(a, b) * b;
  }
  if (overflows) Fail("a number leaves 64 bits");
  return Value::Of(result);
}

Value FloatArithmetic(const std::string& name, double a, double b) {
  if (name == "+") return Value::Of(a + b);
  if (name == "-") return Value::Of(a - b);
  if (name == "*") return Value::Of(a * b);
  if (name == "**") return Value::Of(std::pow(a, b));
  if (b == 0) Fail("a division by zero");
  if (name == "/") return Value::Of(a / b);
  return Value::Of(name == "//" ? std::floor(a / b) : a - std::floor(a / b) * b);
}

Value Joined(const Value& a, const Value& b, Budget& budget) {
  if (a.text()) {
    budget.Spend(a.text()->size() + b.text()->size());
    Text joined = *a.text();
    joined.Append(*b.text());
    return Value::Of(std::move(joined));
  }
  std::vector<Value> items = a.list()->items;
  items.insert(items.end(), b.list()->items.begin(), b.list()->items.end());
  budget.Spend(items.size() * sizeof(Value));
  return Value::OfList(std::move(items), a.list()->is_tuple);
}

Value Repeated(const Value& value, int64_t count, Budget& budget) {
  const size_t size =
      value.text() ? value.text()->size() : value.list()->items.size() * sizeof(Value);
  const size_t times = static_cast<size_t>(std::clamp<int64_t>(count, 0, INT32_MAX));
  if (size == 0) return value;
  budget.Spend(size * std::min(times, size_t{INT32_MAX}));
  if (value.text()) {
    Text repeated;
    for (size_t i = 0; i < times; ++i) repeated.Append(*value.text());
    return Value::Of(std::move(repeated));
  }
  std::vector<Value> items;
  for (size_t i = 0; i < times; ++i)
    items.insert(items.end(), value.list()->items.begin(), value.list()->items.end());
  return Value::OfList(std::move(items), value.list()->is_tuple);
}

bool Contains(const Value& container, const Value& item, Budget& budget) {
  if (container.is_undefined()) return false;
  if (container.text()) {
    if (!item.text()) FailKinds("in", item, container);
    budget.Step(1 + container.text()->size() / 64);
    return container.text()->bytes().find(item.text()->bytes()) != std::string::npos;
  }
  if (container.dict()) {
    budget.Step(1 + container.dict()->entries.size() / 4);
    return container.dict()->Find(item) != nullptr;
  }
  if (!container.list()) FailKinds("in", item, container);
  const std::vector<Value>& items = container.list()->items;
  budget.Step(1 + items.size() / 4 + container.weight() / 64);
  return std::any_of(items.begin(), items.end(), [&](const Value& i) { return i.Equals(item); });
}

}  // namespace

Value Arithmetic(const std::string& name, const Value& a, const Value& b, Budget& budget) {
  if (a.is_number() && b.is_number())
    return a.is_whole() && b.is_whole() ? WholeArithmetic(name, a.whole(), b.whole())
                                        : FloatArithmetic(name, a.number(), b.number());
  const bool both =
      (a.text() && b.text()) || (a.list() && b.list() && a.list()->is_tuple == b.list()->is_tuple);
  if (name == "+" && both) return Joined(a, b, budget);
  if (name == "*" && (a.text() || a.list()) && b.is_whole()) return Repeated(a, b.whole(), budget);
  if (name == "*" && (b.text() || b.list()) && a.is_whole()) return Repeated(b, a.whole(), budget);
  if (name == "%" && a.text()) Fail("formatting a string with \"%\" is not supported");
  FailKinds(name, a, b);
}

Value Signed(const std::string& sign, const Value& value) {
  if (!value.is_number()) FailKinds(sign, value, value);
  if (sign == "+") return value.is_whole() ? Value::Of(value.whole()) : value;
  return value.is_whole() ? WholeArithmetic("-", 0, value.whole()) : Value::Of(-value.number());
}

int Order(const Value& a, const Value& b) {
  if (a.is_number() && b.is_number()) {
    if (a.is_whole() && b.is_whole()) return a.whole() < b.whole() ? -1 : a.whole() > b.whole();
    return a.number() < b.number() ? -1 : a.number() > b.number();
  }
  if (!a.text() || !b.text()) FailKinds("<", a, b);
  return a.text()->bytes().compare(b.text()->bytes());
}

Text TextOf(const Value& value, Budget& budget) {
  budget.Spend(value.weight());
  return value.ToText();
}

bool Compares(const std::string& name, const Value& a, const Value& b, Budget& budget) {
  budget.Step(std::min(a.weight(), b.weight()) / 64);
  if (name == "==") return a.Equals(b);
  if (name == "!=") return !a.Equals(b);
  if (name == "in") return Contains(b, a, budget);
  if (name == "not in") return !Contains(b, a, budget);
  const int order = Order(a, b);
  if (name == "<") return order < 0;
  if (name == ">") return order > 0;
  return name == "<=" ? order <= 0 : order >= 0;
}

std::vector<Value> ItemsOf(const Value& value, Budget& budget) {
  if (value.is_undefined()) return {};
  std::vector<Value> items;
  if (const Text* text = value.text()) {
    const std::vector<size_t> starts = CharacterStarts(text->bytes());
    budget.Spend(starts.size() * 2 * sizeof(Value));
    for (size_t i = 0; i + 1 < starts.size(); ++i)
      items.push_back(Value::Of(text->Part(starts[i], starts[i + 1])));
  } else if (const List* list = value.list()) {
    budget.Spend(list->items.size() * sizeof(Value));
    items = list->items;
  } else if (const Dict* dict = value.dict()) {
    budget.Spend(dict->entries.size() * sizeof(Value));
    for (const auto& entry : dict->entries) items.push_back(entry.first);
  } else {
    Fail("a value of the kind ", value.kind(), " cannot be looped over");
  }
  return items;
}

int64_t LengthOf(const Value& value) {
  if (value.is_undefined()) return 0;
  if (value.text()) return static_cast<int64_t>(CharacterStarts(value.text()->bytes()).size()) - 1;
  if (value.list()) return static_cast<int64_t>(value.list()->items.size());
  if (value.dict()) return static_cast<int64_t>(value.dict()->entries.size());
  Fail("a value of the kind ", value.kind(), " has no length");
}

}  // namespace lwm::jinja
