// Filters over lists.
#include <algorithm>
#include <string_view>

#include "lwm/jinja/access.h"
#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

using Filter = Value (*)(const Value& value, Arguments& arguments, Budget& budget);

// "a.b.0" of a value, as attribute= arguments name it.
Value Deep(Value value, const Value& path, Budget& budget) {
  if (path.is_whole()) return Item(value, path, budget);
  if (!path.text()) Fail("an attribute's name is ", path.kind());
  std::string_view rest = path.text()->bytes();
  while (true) {
    const size_t dot = rest.find('.');
    const std::string name(rest.substr(0, dot));
    const bool number =
        !name.empty() && name.size() < 10 &&
        std::all_of(name.begin(), name.end(), [](char c) { return c >= '0' && c <= '9'; });
    value =
        Item(value, number ? Value::Of(int64_t{std::stoi(name)}) : Value::Of(Text(name)), budget);
    if (dot == std::string_view::npos) return value;
    rest.remove_prefix(dot + 1);
  }
}

Value First(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  const std::vector<Value> items = ItemsOf(value, budget);
  if (!items.empty()) return arguments.callee() == "first" ? items.front() : items.back();
  return Value::MissingNamed("the " + arguments.callee() + " item of an empty list");
}

Value Join(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"d", "attribute"});
  const Text separator = arguments.At(0).ToText();
  Text joined;
  bool first = true;
  for (const Value& item : ItemsOf(value, budget)) {
    const Text text = TextOf(arguments.Has(1) ? Deep(item, arguments.At(1), budget) : item, budget);
    budget.Spend(separator.size());
    if (!first) joined.Append(separator);
    first = false;
    joined.Append(text);
  }
  return Value::Of(std::move(joined));
}

Value Items(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  if (value.is_undefined()) return Value::OfList({});
  if (!value.dict()) Fail("items wants a dict, not ", value.kind());
  return CallMethod(value, {"items", {}}, budget);
}

Value ToList(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  return Value::OfList(ItemsOf(value, budget));
}

Value Reverse(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  std::vector<Value> items = ItemsOf(value, budget);
  std::reverse(items.begin(), items.end());
  if (!value.text()) return Value::OfList(std::move(items));
  Text text;
  for (const Value& item : items) text.Append(*item.text());
  return Value::Of(std::move(text));
}

Value Sum(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"attribute"});
  Value sum = Value::Of(int64_t{0});
  for (const Value& item : ItemsOf(value, budget))
    sum =
        Arithmetic("+", sum, arguments.Has(0) ? Deep(item, arguments.At(0), budget) : item, budget);
  return sum;
}

// Upper and lower case are the same to sort and unique unless they are told otherwise.
Value KeyOf(const Value& item, bool case_sensitive, const Value& attribute, Budget& budget) {
  budget.Step();
  const Value key =
      attribute.is_undefined() || attribute.is_none() ? item : Deep(item, attribute, budget);
  return key.text() && !case_sensitive ? Value::Of(ChangeCase(*key.text(), Case::kLower)) : key;
}

std::vector<Value> Sorted(const std::vector<Value>& items, const std::vector<Value>& keys,
                          bool reverse, Budget& budget) {
  std::vector<size_t> order(items.size());
  for (size_t i = 0; i < order.size(); ++i) order[i] = i;
  std::stable_sort(order.begin(), order.end(), [&](size_t a, size_t b) {
    budget.Step();
    return reverse ? Order(keys[b], keys[a]) < 0 : Order(keys[a], keys[b]) < 0;
  });
  std::vector<Value> sorted;
  for (const size_t i : order) sorted.push_back(items[i]);
  return sorted;
}

Value Sort(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"reverse", "case_sensitive", "attribute"});
  const std::vector<Value> items = ItemsOf(value, budget);
  std::vector<Value> keys;
  for (const Value& item : items)
    keys.push_back(KeyOf(item, arguments.FlagAt(1, false), arguments.At(2), budget));
  return Value::OfList(Sorted(items, keys, arguments.FlagAt(0, false), budget));
}

Value DictSort(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"case_sensitive", "by", "reverse"});
  if (!value.dict()) Fail("dictsort wants a dict, not ", value.kind());
  const std::string by = arguments.Has(1) ? arguments.TextAt(1).bytes() : "key";
  if (by != "key" && by != "value") Fail("dictsort by \"", by, "\"; want key or value");
  const Value pairs = CallMethod(value, {"items", {}}, budget);
  std::vector<Value> keys;
  for (const Value& pair : pairs.list()->items)
    keys.push_back(
        KeyOf(pair, arguments.FlagAt(0, false), Value::Of(int64_t{by == "value"}), budget));
  return Value::OfList(Sorted(pairs.list()->items, keys, arguments.FlagAt(2, false), budget));
}

Value Unique(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"case_sensitive", "attribute"});
  std::vector<Value> seen, kept;
  for (const Value& item : ItemsOf(value, budget)) {
    const Value key = KeyOf(item, arguments.FlagAt(0, false), arguments.At(1), budget);
    budget.Step(1 + seen.size() * (1 + key.weight() / 64));
    if (std::any_of(seen.begin(), seen.end(), [&](const Value& s) { return s.Equals(key); }))
      continue;
    seen.push_back(key);
    kept.push_back(item);
  }
  return Value::OfList(std::move(kept));
}

Value Map(const Value& value, Arguments& arguments, Budget& budget) {
  const bool by_attribute = arguments.positional().empty();
  if (by_attribute) {
    std::vector<Value> none;
    Arguments named("map", std::move(none), arguments.named());
    named.Accept({"attribute", "default"});
    arguments = named;
  }
  std::vector<Value> mapped;
  for (const Value& item : ItemsOf(value, budget)) {
    budget.Spend(sizeof(Value));
    if (!by_attribute) {
      mapped.push_back(CallFilter(item, arguments.Rest(arguments.TextAt(0).bytes(), 1), budget));
      continue;
    }
    Value found = Deep(item, arguments.At(0), budget);
    mapped.push_back(found.is_undefined() && arguments.Has(1) ? arguments.At(1) : found);
  }
  return Value::OfList(std::move(mapped));
}

// select, reject and the two with an attribute in front of the test.
template <bool keeps, bool by_attribute>
Value Select(const Value& value, Arguments& arguments, Budget& budget) {
  constexpr size_t kBefore = by_attribute ? 1 : 0;
  const size_t given = arguments.positional().size();
  if (given < kBefore) Fail(arguments.callee(), " wants the name of an attribute");
  std::vector<Value> kept;
  for (const Value& item : ItemsOf(value, budget)) {
    budget.Step();
    const Value of = by_attribute ? Deep(item, arguments.At(0), budget) : item;
    const bool holds =
        given > kBefore
            ? CallTest(of, arguments.Rest(arguments.TextAt(kBefore).bytes(), kBefore + 1), budget)
            : of.IsTrue();
    if (holds == keeps) kept.push_back(item);
  }
  return Value::OfList(std::move(kept));
}

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr Entry kFilters[] = {
    {"first", First},
    {"last", First},
    {"join", Join},
    {"items", Items},
    {"list", ToList},
    {"reverse", Reverse},
    {"sum", Sum},
    {"sort", Sort},
    {"dictsort", DictSort},
    {"unique", Unique},
    {"map", Map},
    {"select", Select<true, false>},
    {"reject", Select<false, false>},
    {"selectattr", Select<true, true>},
    {"rejectattr", Select<false, true>},
};

}  // namespace

std::optional<Value> CallListFilter(const Value& value, Arguments& arguments, Budget& budget) {
  for (const Entry& entry : kFilters)
    if (entry.name == arguments.callee()) return entry.filter(value, arguments, budget);
  return std::nullopt;
}

}  // namespace lwm::jinja
