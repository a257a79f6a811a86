#include "lwm/jinja/access.h"

#include <algorithm>
#include <iterator>
#include <string_view>

#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

const Value* FindIn(const Namespace& space, std::string_view name) {
  for (const auto& [key, value] : space.entries)
    if (key == name) return &value;
  return nullptr;
}

Value Method(const Value& self, const std::string& name) {
  if (HasMethod(self, name)) return Value::Of(Callable{.name = name, .self = self});
  return Value::MissingNamed(name);
}

[[noreturn]] void FailUndefined(const Value& value) {
  Fail("'", value.missing_name(), "' is undefined");
}

// The bounds of a slice, as Python clips them.
struct Bounds {
  int64_t begin, end, step;
};

Bounds Clip(const Value& begin, const Value& end, const Value& step, int64_t size) {
  const auto whole = [](const Value& value, int64_t otherwise) {
    if (value.is_undefined() || value.is_none()) return otherwise;
    if (!value.is_whole()) Fail("a slice wants integers, not ", value.kind());
    return std::clamp<int64_t>(value.whole(), -(int64_t{1} << 40), int64_t{1} << 40);
  };
  Bounds bounds{};
  bounds.step = whole(step, 1);
  if (bounds.step == 0) Fail("a slice has the step 0");
  const bool forward = bounds.step > 0;
  const int64_t lowest = forward ? 0 : -1, highest = forward ? size : size - 1;
  const auto clip = [&](const Value& value, int64_t otherwise) {
    if (value.is_undefined() || value.is_none()) return otherwise;
    const int64_t at = whole(value, 0);
    return std::clamp(at < 0 ? at + size : at, lowest, highest);
  };
  bounds.begin = clip(begin, forward ? lowest : highest);
  bounds.end = clip(end, forward ? highest : lowest);
  return bounds;
}

template <class Visit>
void ForEachIndex(const Bounds& bounds, const Visit& visit) {
  for (int64_t i = bounds.begin; bounds.step > 0 ? i < bounds.end : i > bounds.end;
       i += bounds.step)
    visit(static_cast<size_t>(i));
}

// An index from the end where it is negative; -1: outside.
int64_t IndexIn(const Value& key, int64_t size) {
  const int64_t at = key.whole();
  if (at >= size || at < -size) return -1;
  return at < 0 ? at + size : at;
}

Value CharacterIn(const Text& text, const Value& key, Budget& budget) {
  budget.Step(1 + text.size() / 16);
  const std::vector<size_t> starts = CharacterStarts(text.bytes());
  const int64_t at = IndexIn(key, static_cast<int64_t>(starts.size()) - 1);
  if (at < 0) return Value::MissingNamed("string[" + std::to_string(key.whole()) + "]");
  const auto i = static_cast<size_t>(at);
  return Value::Of(text.Part(starts[i], starts[i + 1]));
}

}  // namespace

Value Attribute(const Value& value, const std::string& name) {
  if (value.is_undefined()) FailUndefined(value);
  if (HasMethod(value, name)) return Method(value, name);
  const Value* found = value.dict()    ? value.dict()->Find(std::string_view(name))
                       : value.space() ? FindIn(*value.space(), name)
                                       : nullptr;
  return found ? *found : Value::MissingNamed(name);
}

Value Item(const Value& value, const Value& key, Budget& budget) {
  if (value.is_undefined()) FailUndefined(value);
  if (value.dict()) {
    budget.Step(1 + value.dict()->entries.size() / 4);
    if (const Value* found = value.dict()->Find(key)) return *found;
  }
  if (key.text()) return Attribute(value, key.text()->bytes());
  if (value.list() && key.is_whole()) {
    const int64_t at = IndexIn(key, LengthOf(value));
    if (at >= 0) return value.list()->items[static_cast<size_t>(at)];
  }
  if (value.text() && key.is_whole()) return CharacterIn(*value.text(), key, budget);
  return Value::MissingNamed(Cat(value.kind(), "[", key.ToText().bytes(), "]"));
}

Value Slice(const Value& value, const Value& begin, const Value& end, const Value& step,
            Budget& budget) {
  if (value.is_undefined()) FailUndefined(value);
  if (const List* list = value.list()) {
    std::vector<Value> items;
    ForEachIndex(Clip(begin, end, step, LengthOf(value)), [&](size_t i) {
      budget.Spend(sizeof(Value));
      items.push_back(list->items[i]);
    });
    return Value::OfList(std::move(items), list->is_tuple);
  }
  const Text* text = value.text();
  if (!text) Fail("a value of the kind ", value.kind(), " cannot be sliced");
  budget.Spend(text->size() * (1 + sizeof(size_t)));
  const std::vector<size_t> starts = CharacterStarts(text->bytes());
  Text part;
  ForEachIndex(Clip(begin, end, step, static_cast<int64_t>(starts.size()) - 1),
               [&](size_t i) { part.Append(*text, starts[i], starts[i + 1]); });
  return Value::Of(std::move(part));
}

}  // namespace lwm::jinja
