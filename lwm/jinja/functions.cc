#include "lwm/jinja/functions.h"

#include <algorithm>
#include <ctime>
#include <string_view>

#include "lwm/jinja/failure.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

constexpr std::string_view kDictMethods[] = {"get", "items", "keys", "values"};
constexpr std::string_view kListMethods[] = {"index", "count"};
constexpr std::string_view kFunctions[] = {"range", "namespace", "dict", "strftime_now"};
constexpr int64_t kMaxRange = 100'000;  // as in transformers' sandbox

template <class Names>
bool IsIn(const Names& names, const std::string& name) {
  return std::find(std::begin(names), std::end(names), name) != std::end(names);
}

Value EntriesOf(const Dict& dict, const std::string& name, Budget& budget) {
  budget.Spend(dict.entries.size() * 4 * sizeof(Value));
  std::vector<Value> items;
  for (const auto& [key, value] : dict.entries)
    items.push_back(name == "keys"     ? key
                    : name == "values" ? value
                                       : Value::OfList({key, value}, /*is_tuple=*/true));
  return Value::OfList(std::move(items));
}

Value CallDictMethod(const Dict& dict, Arguments& arguments, Budget& budget) {
  if (arguments.callee() != "get") {
    arguments.Accept({});
    return EntriesOf(dict, arguments.callee(), budget);
  }
  arguments.Accept({"key", "default"});
  budget.Step(1 + dict.entries.size() / 4);
  if (const Value* found = dict.Find(arguments.At(0))) return *found;
  return arguments.positional().size() > 1 ? arguments.At(1) : Value::OfNone();
}

Value CallListMethod(const List& list, Arguments& arguments, Budget& budget) {
  arguments.Accept({"value"});
  budget.Step(1 + list.items.size() / 4 + list.weight / 64);
  const auto same = [&](const Value& item) { return item.Equals(arguments.At(0)); };
  if (arguments.callee() == "count")
    return Value::Of(int64_t{std::count_if(list.items.begin(), list.items.end(), same)});
  const auto found = std::find_if(list.items.begin(), list.items.end(), same);
  if (found == list.items.end()) Fail("index: the list does not hold the value");
  return Value::Of(int64_t{found - list.items.begin()});
}

Value Range(Arguments& arguments, Budget& budget) {
  arguments.Accept({"start", "stop", "step"});
  const bool one = arguments.positional().size() == 1;
  const int64_t begin = one ? 0 : arguments.WholeAt(0, 0);
  const int64_t end = arguments.WholeAt(one ? 0 : 1, 0), step = arguments.WholeAt(2, 1);
  constexpr int64_t kLarge = int64_t{1} << 40;
  if (step == 0 || std::max({std::abs(begin / 2), std::abs(end / 2), std::abs(step / 2)}) > kLarge)
    Fail("range with a step of 0 or a number that is too large");
  const int64_t count = std::max<int64_t>(0, (end - begin + step - (step > 0 ? 1 : -1)) / step);
  if (count > kMaxRange) Fail("range of ", count, " numbers; at most ", kMaxRange);
  budget.Spend(static_cast<size_t>(count) * sizeof(Value));
  std::vector<Value> items;
  for (int64_t i = 0; i < count; ++i) items.push_back(Value::Of(begin + i * step));
  return Value::OfList(std::move(items));
}

void RefuseSpaces(const Value& value) {
  if (value.space()) Fail("a namespace inside of another value is not supported");
}

Value MakeNamespace(const Arguments& arguments) {
  auto space = std::make_shared<Namespace>();
  for (const Value& value : arguments.positional()) {
    if (!value.dict()) Fail("namespace wants a dict, not ", value.kind());
    for (const auto& [key, entry] : value.dict()->entries)
      space->entries.emplace_back(key.ToText().bytes(), entry);
  }
  for (const auto& [name, value] : arguments.named()) {
    RefuseSpaces(value);
    space->entries.emplace_back(name, value);
  }
  return Value::Of(std::move(space));
}

Value MakeDict(const Arguments& arguments) {
  if (!arguments.positional().empty()) Fail("dict takes named arguments only in chat templates");
  std::vector<std::pair<Value, Value>> entries;
  for (const auto& [name, value] : arguments.named()) {
    RefuseSpaces(value);
    entries.emplace_back(Value::Of(Text(name)), value);
  }
  return Value::OfDict(std::move(entries));
}

Value FormatTime(Arguments& arguments, int64_t now) {
  arguments.Accept({"format"});
  const std::string& format = arguments.TextAt(0).bytes();
  const auto seconds = static_cast<std::time_t>(now);
  std::tm time{};
  localtime_r(&seconds, &time);
  char text[1024];
  const size_t size = std::strftime(text, sizeof text, format.c_str(), &time);
  if (size == 0 && !format.empty()) Fail("strftime_now with an empty or too long result");
  return Value::Of(Text(std::string(text, size)));
}

}  // namespace

bool HasMethod(const Value& self, const std::string& name) {
  return self.text()   ? HasTextMethod(name)
         : self.dict() ? IsIn(kDictMethods, name)
                       : self.list() && IsIn(kListMethods, name);
}

Value CallMethod(const Value& self, Arguments arguments, Budget& budget) {
  if (self.text()) return CallTextMethod(*self.text(), std::move(arguments), budget);
  if (self.dict()) return CallDictMethod(*self.dict(), arguments, budget);
  if (self.list()) return CallListMethod(*self.list(), arguments, budget);
  // loop.cycle, bound to the index of the iteration
  const std::vector<Value>& choices = arguments.positional();
  if (choices.empty()) Fail("loop.cycle wants at least one value");
  return choices[static_cast<size_t>(self.whole()) % choices.size()];
}

bool IsFunction(const std::string& name) { return IsIn(kFunctions, name); }

Value CallFunction(Arguments arguments, int64_t now, Budget& budget) {
  const std::string& name = arguments.callee();
  if (name == "range") return Range(arguments, budget);
  if (name == "namespace") return MakeNamespace(arguments);
  if (name == "dict") return MakeDict(arguments);
  return FormatTime(arguments, now);
}

}  // namespace lwm::jinja
