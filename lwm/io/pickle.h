#pragma once

#include <cstddef>
#include <cstdint>
#include <deque>
#include <functional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

namespace lwm::io {

// A Python pickle (protocols 2 to 5) read as data: nothing is imported, called or executed. Calls
// become values that name the function and its arguments; the caller interprets them.
// Texts and bytes point into the pickle, which must outlive this object.
using PickleId = uint32_t;

struct PickleValue {
  enum class Kind : uint8_t {
    kNone,
    kBool,        // integer
    kInt,         // integer
    kFloat,       // number
    kText,        // text, UTF-8
    kBytes,       // text
    kTuple,       // items
    kList,        // items
    kDict,        // items: key, value, key, value ...
    kGlobal,      // text = "module", name
    kCall,        // items: function, tuple of arguments, then key, value ... set later
    kPersistent,  // items: the id
  };
  Kind kind = Kind::kNone;
  bool has_state = false;
  PickleId state = 0;  // argument of BUILD (__setstate__), if has_state
  int64_t integer = 0;
  double number = 0;
  std::string_view text, name;
  std::vector<PickleId> items;
};

class Pickle {
 public:
  // `allowed(module, name)` says which globals may be named; any other is refused by name, and so
  // is every opcode that plain arrays and dicts do not need. `where` names the file in errors.
  // Throws Error(kCorruptData). Bounded: 8 million opcodes, 1 million values.
  Pickle(std::span<const std::byte> bytes, const std::string& where,
         const std::function<bool(std::string_view module, std::string_view name)>& allowed);

  PickleId root() const { return root_; }
  PickleId size() const { return static_cast<PickleId>(values_.size()); }  // ids are below it
  const PickleValue& operator[](PickleId id) const { return values_[id]; }
  const std::string& where() const { return where_; }

  // Typed access for interpreters; throws Error(kCorruptData) when the value is of another kind.
  int64_t Integer(PickleId id) const;
  std::string_view Text(PickleId id) const;
  std::vector<int64_t> Integers(PickleId id) const;  // of a tuple or list
  // Elements of a tuple of at least `least` elements.
  std::span<const PickleId> Tuple(PickleId id, size_t least) const;
  // Key, value, key, value ... of a dict or of a call that got items (OrderedDict).
  std::span<const PickleId> Entries(PickleId id) const;
  bool IsGlobal(PickleId id, std::string_view module, std::string_view name) const;
  // The arguments if `id` is a call of module.name, which takes at least `least`; else empty.
  std::span<const PickleId> CallOf(PickleId id, std::string_view module, std::string_view name,
                                   size_t least) const;

 private:
  friend class PickleMachine;
  const PickleValue& Expect(PickleId id, PickleValue::Kind kind, const char* what) const;

  std::string where_;
  std::deque<PickleValue> values_;
  PickleId root_ = 0;
};

}  // namespace lwm::io
