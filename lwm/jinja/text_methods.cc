// Methods of strings, as Python's.
#include <algorithm>
#include <string_view>

#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

constexpr size_t kNone = std::string::npos;

using Method = Value (*)(const Text& self, Arguments& arguments, Budget& budget);

template <Case to>
Value Changed(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({});
  return Value::Of(ChangeCase(self, to));
}

template <bool left, bool right>
Value Stripped(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"chars"});
  const bool all = !arguments.Has(0) || arguments.At(0).is_none();
  return Value::Of(Strip(self, left, right, all ? nullptr : &arguments.TextAt(0).bytes()));
}

// A piece after the other, which the budget pays for.
class Pieces {
 public:
  Pieces(const Text& text, Budget& budget) : text_(text), budget_(budget) {}
  void Add(size_t begin, size_t end) {
    budget_.Spend(2 * sizeof(Value) + end - begin);
    pieces_.push_back(Value::Of(text_.Part(begin, end)));
  }
  size_t size() const { return pieces_.size(); }
  std::vector<Value> Take() { return std::move(pieces_); }

 private:
  const Text& text_;
  Budget& budget_;
  std::vector<Value> pieces_;
};

Value SplitAtSpace(const Text& self, size_t most, Budget& budget) {
  Pieces pieces(self, budget);
  const std::vector<size_t> starts = CharacterStarts(self.bytes());
  const auto space = [&](size_t i) { return IsSpace(CharacterAt(self.bytes(), starts[i]).code); };
  const size_t end = starts.size() - 1;
  for (size_t i = 0; i < end;) {
    if (space(i)) {
      ++i;
      continue;
    }
    size_t stop = i;
    if (pieces.size() == most)
      stop = end;
    else
      while (stop < end && !space(stop)) ++stop;
    pieces.Add(starts[i], starts[stop]);
    i = stop;
  }
  return Value::OfList(pieces.Take());
}

Value SplitAt(const Text& self, const std::string& separator, size_t most, Budget& budget) {
  if (separator.empty()) Fail("split with an empty separator");
  Pieces pieces(self, budget);
  size_t begin = 0;
  while (pieces.size() < most) {
    const size_t at = self.bytes().find(separator, begin);
    if (at == kNone) break;
    pieces.Add(begin, at);
    begin = at + separator.size();
  }
  pieces.Add(begin, self.size());
  return Value::OfList(pieces.Take());
}

Value RightSplitAt(const Text& self, const std::string& separator, size_t most, Budget& budget) {
  if (separator.empty()) Fail("rsplit with an empty separator");
  Pieces pieces(self, budget);
  size_t end = self.size();
  while (pieces.size() < most && end >= separator.size()) {
    const size_t at = self.bytes().rfind(separator, end - separator.size());
    if (at == kNone) break;
    pieces.Add(at + separator.size(), end);
    end = at;
  }
  pieces.Add(0, end);
  std::vector<Value> items = pieces.Take();
  std::reverse(items.begin(), items.end());
  return Value::OfList(std::move(items));
}

template <bool from_right>
Value Split(const Text& self, Arguments& arguments, Budget& budget) {
  arguments.Accept({"sep", "maxsplit"});
  const int64_t most = arguments.WholeAt(1, -1);
  const size_t limit = most < 0 ? kNone : static_cast<size_t>(most);
  const bool at_space = !arguments.Has(0) || arguments.At(0).is_none();
  if (at_space && from_right && most >= 0) Fail("rsplit with a limit wants a separator");
  if (at_space) return SplitAtSpace(self, limit, budget);
  const std::string& separator = arguments.TextAt(0).bytes();
  return from_right ? RightSplitAt(self, separator, limit, budget)
                    : SplitAt(self, separator, limit, budget);
}

Value SplitLines(const Text& self, Arguments& arguments, Budget& budget) {
  arguments.Accept({"keepends"});
  const bool keep = arguments.FlagAt(0, false);
  Pieces pieces(self, budget);
  for (size_t begin = 0; begin < self.size();) {
    size_t end = self.bytes().find_first_of("\n\r\v\f\x1c\x1d\x1e", begin);
    if (end == kNone) end = self.size();
    size_t next = std::min(end + 1, self.size());
    if (self.bytes().substr(end, 2) == "\r\n") ++next;
    pieces.Add(begin, keep ? next : end);
    begin = next;
  }
  return Value::OfList(pieces.Take());
}

template <bool at_end>
Value Begins(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"prefix"});
  const auto fits = [&](const Value& value) {
    if (!value.text()) Fail(arguments.callee(), " wants a string, not ", value.kind());
    const std::string& part = value.text()->bytes();
    return at_end ? self.bytes().ends_with(part) : self.bytes().starts_with(part);
  };
  const List* list = arguments.At(0).list();
  return Value::Of(list ? std::any_of(list->items.begin(), list->items.end(), fits)
                        : fits(arguments.At(0)));
}

template <bool at_end>
Value WithoutEnd(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"part"});
  const std::string& part = arguments.TextAt(0).bytes();
  const bool has = at_end ? self.bytes().ends_with(part) : self.bytes().starts_with(part);
  if (!has) return Value::Of(self);
  return Value::Of(at_end ? self.Part(0, self.size() - part.size())
                          : self.Part(part.size(), self.size()));
}

Value Replace(const Text& self, Arguments& arguments, Budget& budget) {
  arguments.Accept({"old", "new", "count"});
  const std::string& old = arguments.TextAt(0).bytes();
  const Text& put = arguments.TextAt(1);
  if (old.empty()) Fail("replace of an empty string is not supported");
  int64_t left = arguments.WholeAt(2, -1);
  Text result;
  size_t begin = 0;
  for (; left != 0; --left) {
    const size_t at = self.bytes().find(old, begin);
    if (at == kNone) break;
    budget.Spend(at - begin + put.size());
    result.Append(self, begin, at);
    result.Append(put);
    begin = at + old.size();
  }
  result.Append(self, begin, self.size());
  return Value::Of(std::move(result));
}

// The index of a character, from its byte.
Value CharacterIndex(const Text& self, size_t byte) {
  if (byte == kNone) return Value::Of(int64_t{-1});
  const std::string_view before = std::string_view(self.bytes()).substr(0, byte);
  return Value::Of(static_cast<int64_t>(CharacterStarts(before).size()) - 1);
}

template <bool from_right>
Value Find(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"sub"});
  const std::string& part = arguments.TextAt(0).bytes();
  return CharacterIndex(self, from_right ? self.bytes().rfind(part) : self.bytes().find(part));
}

Value Count(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"sub"});
  const std::string& part = arguments.TextAt(0).bytes();
  if (part.empty()) return Value::Of(LengthOf(Value::Of(self)) + 1);
  int64_t count = 0;
  for (size_t at = self.bytes().find(part); at != kNone;
       at = self.bytes().find(part, at + part.size()))
    ++count;
  return Value::Of(count);
}

Value Join(const Text& self, Arguments& arguments, Budget& budget) {
  arguments.Accept({"iterable"});
  Text joined;
  bool first = true;
  for (const Value& item : ItemsOf(arguments.At(0), budget)) {
    if (!item.text()) Fail("join wants strings, not ", item.kind());
    budget.Spend(self.size() + item.text()->size());
    if (!first) joined.Append(self);
    first = false;
    joined.Append(*item.text());
  }
  return Value::Of(std::move(joined));
}

template <bool from_right>
Value Partition(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({"sep"});
  const Text& separator = arguments.TextAt(0);
  if (separator.empty()) Fail("partition with an empty separator");
  const size_t at =
      from_right ? self.bytes().rfind(separator.bytes()) : self.bytes().find(separator.bytes());
  const Value none = Value::Of(Text());
  if (at == kNone)
    return Value::OfList(
        {from_right ? none : Value::Of(self), none, from_right ? Value::Of(self) : none}, true);
  const size_t end = at + separator.size();
  return Value::OfList({Value::Of(self.Part(0, at)), Value::Of(self.Part(at, end)),
                        Value::Of(self.Part(end, self.size()))},
                       true);
}

template <bool is_digit>
Value HasOnly(const Text& self, Arguments& arguments, Budget&) {
  arguments.Accept({});
  bool all = !self.empty();
  for (size_t at = 0; all && at < self.size();) {
    const Character c = CharacterAt(self.bytes(), at);
    if (is_digit && c.code >= 0x80) Fail("isdigit of characters beyond ASCII is not supported");
    all = is_digit ? c.code >= '0' && c.code <= '9' : IsSpace(c.code);
    at = c.end;
  }
  return Value::Of(all);
}

struct Entry {
  std::string_view name;
  Method method;
};

constexpr Entry kMethods[] = {
    {"upper", Changed<Case::kUpper>},
    {"lower", Changed<Case::kLower>},
    {"title", Changed<Case::kTitle>},
    {"capitalize", Changed<Case::kCapitalize>},
    {"strip", Stripped<true, true>},
    {"lstrip", Stripped<true, false>},
    {"rstrip", Stripped<false, true>},
    {"split", Split<false>},
    {"rsplit", Split<true>},
    {"splitlines", SplitLines},
    {"startswith", Begins<false>},
    {"endswith", Begins<true>},
    {"removeprefix", WithoutEnd<false>},
    {"removesuffix", WithoutEnd<true>},
    {"replace", Replace},
    {"find", Find<false>},
    {"rfind", Find<true>},
    {"count", Count},
    {"join", Join},
    {"partition", Partition<false>},
    {"rpartition", Partition<true>},
    {"isdigit", HasOnly<true>},
    {"isspace", HasOnly<false>},
};

const Entry* FindMethod(const std::string& name) {
  const auto* found = std::find_if(std::begin(kMethods), std::end(kMethods),
                                   [&](const Entry& entry) { return entry.name == name; });
  return found == std::end(kMethods) ? nullptr : found;
}

}  // namespace

bool HasTextMethod(const std::string& name) { return FindMethod(name) != nullptr; }

Value CallTextMethod(const Text& self, Arguments arguments, Budget& budget) {
  const Entry* entry = FindMethod(arguments.callee());
  if (!entry) Fail("strings have no method ", arguments.callee(), " in chat templates");
  budget.Step(1 + self.size() / 64);
  budget.Spend(self.size());
  return entry->method(self, arguments, budget);
}

}  // namespace lwm::jinja
