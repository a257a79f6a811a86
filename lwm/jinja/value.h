#pragma once

#include <cstddef>
#include <cstdint>
#include <memory>
#include <string>
#include <utility>
#include <variant>
#include <vector>

#include "lwm/jinja/text.h"

namespace lwm::jinja {

struct List;
struct Dict;
struct Namespace;
struct Callable;

// A value of a template, with Python's rules. Immutable but for namespaces; copies share.
class Value {
 public:
  struct Undefined {
    std::string name;  // of the missing thing, for messages
  };
  struct None {};

  Value() : data_(Undefined{}) {}
  static Value MissingNamed(std::string name) { return Value(Data(Undefined{std::move(name)})); }
  static Value OfNone() { return Value(Data(None{})); }
  static Value Of(bool value) { return Value(Data(value)); }
  static Value Of(int64_t value) { return Value(Data(value)); }
  static Value Of(double value) { return Value(Data(value)); }
  static Value Of(Text text) { return Value(Data(std::make_shared<const Text>(std::move(text)))); }
  // Lists and dicts deeper than kMaxDepth or heavier than kMaxWeight are refused: Failure.
  static Value OfList(std::vector<Value> items, bool is_tuple = false);
  static Value OfDict(std::vector<std::pair<Value, Value>> entries);
  static Value Of(std::shared_ptr<Namespace> space) { return Value(Data(std::move(space))); }
  static Value Of(Callable callable);

  bool is_undefined() const { return std::holds_alternative<Undefined>(data_); }
  bool is_none() const { return std::holds_alternative<None>(data_); }
  bool is_bool() const { return std::holds_alternative<bool>(data_); }
  bool is_int() const { return std::holds_alternative<int64_t>(data_); }
  bool is_float() const { return std::holds_alternative<double>(data_); }
  bool is_whole() const { return is_int() || is_bool(); }
  bool is_number() const { return is_whole() || is_float(); }  // with bools, as in Python

  const std::string& missing_name() const { return std::get<Undefined>(data_).name; }
  int64_t whole() const { return is_bool() ? std::get<bool>(data_) : std::get<int64_t>(data_); }
  double number() const;
  const Text* text() const { return Shared<const Text>(); }  // nullptr: of another kind
  const List* list() const { return Shared<const List>(); }
  const Dict* dict() const { return Shared<const Dict>(); }
  Namespace* space() const { return Shared<Namespace>(); }
  const Callable* callable() const { return Shared<const Callable>(); }

  size_t weight() const;     // about the bytes of its repr, from which its cost follows
  int depth() const;         // of nested lists and dicts
  const char* kind() const;  // "string", "list", ..., for messages
  bool IsTrue() const;       // Python's bool()
  Text ToText() const;       // Python's str(); undefined: ""
  bool Equals(const Value& other) const;  // Python's ==

  static constexpr int kMaxDepth = 64;
  static constexpr size_t kMaxWeight = size_t{1} << 30;

 private:
  using Data = std::variant<Undefined, None, bool, int64_t, double, std::shared_ptr<const Text>,
                            std::shared_ptr<const List>, std::shared_ptr<const Dict>,
                            std::shared_ptr<Namespace>, std::shared_ptr<const Callable>>;
  explicit Value(Data data) : data_(std::move(data)) {}

  template <class T>
  T* Shared() const {
    const auto* found = std::get_if<std::shared_ptr<T>>(&data_);
    return found ? found->get() : nullptr;
  }

  Data data_;
};

struct List {
  std::vector<Value> items;
  bool is_tuple = false;
  int depth = 1;
  size_t weight = 2;
};

struct Dict {
  std::vector<std::pair<Value, Value>> entries;  // in the order of insertion
  int depth = 1;
  size_t weight = 2;

  const Value* Find(const Value& key) const;
  const Value* Find(std::string_view key) const;
};

// namespace(): its attributes are what {% set ns.x = ... %} changes.
struct Namespace {
  std::vector<std::pair<std::string, Value>> entries;
};

struct Macro;  // a macro's definition, in syntax.h

// A function, a method bound to its value, or a macro.
struct Callable {
  std::string name;
  Value self = {};  // undefined: a function
  const Macro* macro = nullptr;
};

std::string FloatText(double value);  // as Python's repr

}  // namespace lwm::jinja
