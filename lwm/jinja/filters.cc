// value | filter
#include <algorithm>
#include <charconv>
#include <cmath>
#include <string_view>

#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/operators.h"
#include "lwm/jinja/value_text.h"

namespace lwm::jinja {
namespace {

using Filter = Value (*)(const Value& value, Arguments& arguments, Budget& budget);

Value Trim(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"chars"});
  const bool all = !arguments.Has(0) || arguments.At(0).is_none();
  return Value::Of(
      Strip(TextOf(value, budget), true, true, all ? nullptr : &arguments.TextAt(0).bytes()));
}

template <Case to>
Value Changed(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  return Value::Of(ChangeCase(TextOf(value, budget), to));
}

// Unlike str.title: words begin after white space and opening brackets only.
Value Title(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  const Text text = TextOf(value, budget);
  Text result;
  bool begins = true;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text.bytes(), at);
    const Text part = text.Part(at, c.end);
    result.Append(ChangeCase(part, begins ? Case::kUpper : Case::kLower));
    begins = IsSpace(c.code) ||
             (c.code < 0x80 &&
              std::string_view("-({[<").find(static_cast<char>(c.code)) != std::string_view::npos);
    at = c.end;
  }
  return Value::Of(std::move(result));
}

Value AsText(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  return Value::Of(TextOf(value, budget));
}

Value Default(const Value& value, Arguments& arguments, Budget&) {
  arguments.Accept({"default_value", "boolean"});
  const bool replaces = value.is_undefined() || (arguments.FlagAt(1, false) && !value.IsTrue());
  if (!replaces) return value;
  return arguments.Has(0) ? arguments.At(0) : Value::Of(Text());
}

Value Length(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({});
  if (value.text()) budget.Step(1 + value.text()->size() / 64);
  return Value::Of(LengthOf(value));
}

Value ToJson(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"ensure_ascii", "indent", "separators", "sort_keys"});
  if (arguments.FlagAt(0, false)) Fail("tojson with ensure_ascii is not supported");
  JsonStyle style;
  style.indent = arguments.WholeAt(1, -1);
  if (style.indent > 16) Fail("tojson with an indent of ", style.indent, "; at most 16");
  if (style.indent >= 0) style.item_separator = ",";
  if (arguments.Has(2) && !arguments.At(2).is_none()) {
    const List* list = arguments.At(2).list();
    if (!list || list->items.size() != 2 || !list->items[0].text() || !list->items[1].text())
      Fail("tojson wants two strings as separators");
    style.item_separator = list->items[0].text()->bytes();
    style.key_separator = list->items[1].text()->bytes();
  }
  style.sort_keys = arguments.FlagAt(3, false);
  const auto indent = static_cast<size_t>(std::max<int64_t>(style.indent, 0));
  budget.Spend(value.weight() * (1 + indent * static_cast<size_t>(value.depth())));
  return Value::Of(JsonText(value, style));
}

Value Replace(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"old", "new", "count"});
  std::vector<Value> texts = {Value::Of(arguments.At(0).ToText()),
                              Value::Of(arguments.At(1).ToText()), arguments.At(2)};
  return CallTextMethod(TextOf(value, budget), {"replace", std::move(texts)}, budget);
}

Value Indent(const Value& value, Arguments& arguments, Budget& budget) {
  arguments.Accept({"width", "first", "blank"});
  if (arguments.At(0).text()) Fail("indent wants a number as width");
  const int64_t width = std::clamp<int64_t>(arguments.WholeAt(0, 4), 0, 1024);
  const bool blank = arguments.FlagAt(2, false);
  const std::string spaces(static_cast<size_t>(width), ' ');
  Text text = TextOf(value, budget);
  text.Append("\n", false);
  const Value lines = CallTextMethod(text, {"splitlines", {}}, budget);
  Text result;
  bool first = true;
  for (const Value& line : lines.list()->items) {
    const bool indents = first ? arguments.FlagAt(1, false) : blank || !line.text()->empty();
    if (!first) result.Append("\n", false);
    if (indents) result.Append(spaces, false);
    budget.Spend(spaces.size() + line.text()->size() + 1);
    result.Append(*line.text());
    first = false;
  }
  return Value::Of(std::move(result));
}

template <class T>
bool ParseNumber(const std::string& text, T& number) {
  const Text stripped = Strip(Text(text), true, true);
  const char* begin = stripped.bytes().data();
  const auto result = std::from_chars(begin, begin + stripped.size(), number);
  return result.ec == std::errc() && result.ptr == begin + stripped.size();
}

Value ToInteger(const Value& value, Arguments& arguments, Budget&) {
  arguments.Accept({"default"});
  const auto of_float = [](double number) {
    if (!(std::abs(number) < 9e18)) Fail("int of a number that is too large");
    return Value::Of(static_cast<int64_t>(number));
  };
  if (value.is_whole()) return Value::Of(value.whole());
  if (value.is_float()) return of_float(value.number());
  int64_t whole = 0;
  double number = 0;
  if (value.text() && ParseNumber(value.text()->bytes(), whole)) return Value::Of(whole);
  if (value.text() && ParseNumber(value.text()->bytes(), number)) return of_float(number);
  return arguments.Has(0) ? arguments.At(0) : Value::Of(int64_t{0});
}

Value ToFloat(const Value& value, Arguments& arguments, Budget&) {
  arguments.Accept({"default"});
  if (value.is_number()) return Value::Of(value.number());
  double number = 0;
  if (value.text() && ParseNumber(value.text()->bytes(), number)) return Value::Of(number);
  return arguments.Has(0) ? arguments.At(0) : Value::Of(0.0);
}

Value Absolute(const Value& value, Arguments& arguments, Budget&) {
  arguments.Accept({});
  if (!value.is_number()) Fail("abs wants a number, not ", value.kind());
  return value.number() < 0 ? Signed("-", value) : value;
}

struct Entry {
  std::string_view name;
  Filter filter;
};

constexpr Entry kFilters[] = {
    {"trim", Trim},
    {"upper", Changed<Case::kUpper>},
    {"lower", Changed<Case::kLower>},
    {"capitalize", Changed<Case::kCapitalize>},
    {"title", Title},
    {"string", AsText},
    {"safe", AsText},
    {"default", Default},
    {"d", Default},
    {"length", Length},
    {"count", Length},
    {"tojson", ToJson},
    {"replace", Replace},
    {"indent", Indent},
    {"int", ToInteger},
    {"float", ToFloat},
    {"abs", Absolute},
};

}  // namespace

Value CallFilter(const Value& value, Arguments arguments, Budget& budget) {
  const auto* found =
      std::find_if(std::begin(kFilters), std::end(kFilters),
                   [&](const Entry& entry) { return entry.name == arguments.callee(); });
  if (found != std::end(kFilters)) return found->filter(value, arguments, budget);
  if (auto result = CallListFilter(value, arguments, budget)) return *std::move(result);
  Fail("the filter \"", arguments.callee(), "\" is not supported");
}

}  // namespace lwm::jinja
