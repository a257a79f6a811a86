#include "lwm/jinja/value.h"

#include <algorithm>
#include <charconv>
#include <cmath>

#include "lwm/jinja/value_text.h"

namespace lwm::jinja {
namespace {

int CheckedDepth(int depth) {
  if (depth > Value::kMaxDepth)
    Fail("lists and dicts are nested more than ", Value::kMaxDepth, " deep");
  return depth;
}

size_t CheckedWeight(size_t weight) {
  if (weight > Value::kMaxWeight) Fail("a list or dict of more than ", Value::kMaxWeight, " bytes");
  return weight;
}

bool SameItems(const std::vector<Value>& a, const std::vector<Value>& b) {
  return std::equal(a.begin(), a.end(), b.begin(), b.end(),
                    [](const Value& x, const Value& y) { return x.Equals(y); });
}

bool SameEntries(const Dict& a, const Dict& b) {
  return a.entries.size() == b.entries.size() &&
         std::all_of(a.entries.begin(), a.entries.end(), [&](const auto& entry) {
           const Value* other = b.Find(entry.first);
           return other && entry.second.Equals(*other);
         });
}

bool SameNumber(const Value& a, const Value& b) {
  return a.is_whole() && b.is_whole() ? a.whole() == b.whole() : a.number() == b.number();
}

}  // namespace

Value Value::OfList(std::vector<Value> items, bool is_tuple) {
  int depth = 0;
  size_t weight = 2;
  for (const Value& item : items) {
    depth = std::max(depth, item.depth());
    weight += item.weight() + 2;
  }
  return Value(Data(std::make_shared<const List>(
      List{std::move(items), is_tuple, CheckedDepth(depth + 1), CheckedWeight(weight)})));
}

Value Value::OfDict(std::vector<std::pair<Value, Value>> entries) {
  int depth = 0;
  size_t weight = 2;
  for (const auto& [key, value] : entries) {
    depth = std::max({depth, key.depth(), value.depth()});
    weight += key.weight() + value.weight() + 4;
  }
  return Value(Data(std::make_shared<const Dict>(
      Dict{std::move(entries), CheckedDepth(depth + 1), CheckedWeight(weight)})));
}

Value Value::Of(Callable callable) {
  CheckedDepth(callable.self.depth() + 1);
  return Value(Data(std::make_shared<const Callable>(std::move(callable))));
}

double Value::number() const {
  return is_float() ? std::get<double>(data_) : static_cast<double>(whole());
}

size_t Value::weight() const {
  if (text()) return text()->size() + 2;
  if (list()) return list()->weight;
  if (dict()) return dict()->weight;
  return callable() ? callable()->self.weight() + 8 : 8;
}

int Value::depth() const {
  if (list()) return list()->depth;
  if (dict()) return dict()->depth;
  return callable() ? callable()->self.depth() + 1 : 0;
}

const char* Value::kind() const {
  static constexpr const char* kNames[] = {"undefined", "none", "boolean", "integer",   "float",
                                           "string",    "list", "dict",    "namespace", "function"};
  return kNames[data_.index()];
}

bool Value::IsTrue() const {
  if (is_undefined() || is_none()) return false;
  if (is_number()) return number() != 0;
  if (text()) return !text()->empty();
  if (list()) return !list()->items.empty();
  if (dict()) return !dict()->entries.empty();
  return true;
}

Text Value::ToText() const {
  if (is_undefined()) return {};
  return text() ? *text() : Repr(*this);
}

bool Value::Equals(const Value& other) const {
  if (is_number() && other.is_number()) return SameNumber(*this, other);
  if (data_.index() != other.data_.index()) return false;
  if (text()) return text()->bytes() == other.text()->bytes();
  if (list())
    return list()->is_tuple == other.list()->is_tuple &&
           SameItems(list()->items, other.list()->items);
  if (dict()) return SameEntries(*dict(), *other.dict());
  if (space()) return space() == other.space();
  if (callable()) return callable() == other.callable();
  return true;
}

const Value* Dict::Find(const Value& key) const {
  for (const auto& [name, value] : entries)
    if (name.Equals(key)) return &value;
  return nullptr;
}

const Value* Dict::Find(std::string_view key) const {
  for (const auto& [name, value] : entries)
    if (name.text() && name.text()->bytes() == key) return &value;
  return nullptr;
}

std::string FloatText(double value) {
  if (std::isnan(value)) return "nan";
  if (std::isinf(value)) return value > 0 ? "inf" : "-inf";
  char digits[64];
  const auto end =
      std::to_chars(digits, digits + sizeof digits, value, std::chars_format::scientific);
  const std::string scientific(digits, end.ptr);
  const int exponent = std::stoi(scientific.substr(scientific.find('e') + 1));
  if (exponent < -4 || exponent >= 16) return scientific;
  const auto fixed = std::to_chars(digits, digits + sizeof digits, value, std::chars_format::fixed);
  std::string text(digits, fixed.ptr);
  return text.find('.') == std::string::npos ? text + ".0" : text;
}

}  // namespace lwm::jinja
