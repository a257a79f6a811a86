#include "lwm/jinja/value_text.h"

#include <fmt/format.h>

#include <algorithm>
#include <numeric>

namespace lwm::jinja {
namespace {

std::string ScalarText(const Value& value) {
  if (value.is_undefined()) return "Undefined";
  if (value.is_none()) return "None";
  if (value.is_bool()) return value.IsTrue() ? "True" : "False";
  if (value.is_int()) return std::to_string(value.whole());
  if (value.is_float()) return FloatText(value.number());
  return fmt::format("<{}>", value.kind());
}

std::string ReprEscape(char32_t code, char quote) {
  switch (code) {
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\\':
      return "\\\\";
    default:
      if (code == static_cast<unsigned char>(quote)) return std::string("\\") + quote;
      if (code < 0x20 || (code >= 0x7F && code < 0xA1) || code == 0xAD)
        return fmt::format("\\x{:02x}", static_cast<uint32_t>(code));
      return Utf8Of(code);
  }
}

std::string JsonEscape(char32_t code) {
  switch (code) {
    case '"':
      return "\\\"";
    case '\\':
      return "\\\\";
    case '\n':
      return "\\n";
    case '\r':
      return "\\r";
    case '\t':
      return "\\t";
    case '\f':
      return "\\f";
    case '\b':
      return "\\b";
    default:
      if (code < 0x20) return fmt::format("\\u{:04x}", static_cast<uint32_t>(code));
      return Utf8Of(code);
  }
}

template <class Escape>
void AppendQuoted(const Text& text, char quote, const Escape& escape, Text& out) {
  out.Append(std::string_view(&quote, 1), false);
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text.bytes(), at);
    out.Append(escape(c.code), text.is_foreign(at));
    at = c.end;
  }
  out.Append(std::string_view(&quote, 1), false);
}

void AppendRepr(const Value& value, Text& out) {
  const auto literal = [&](std::string_view bytes) { out.Append(bytes, false); };
  if (const Text* text = value.text()) {
    const bool has_single = text->bytes().find('\'') != std::string::npos;
    const bool has_double = text->bytes().find('"') != std::string::npos;
    const char quote = has_single && !has_double ? '"' : '\'';
    AppendQuoted(
        *text, quote, [&](char32_t code) { return ReprEscape(code, quote); }, out);
  } else if (const List* list = value.list()) {
    literal(list->is_tuple ? "(" : "[");
    for (size_t i = 0; i < list->items.size(); ++i) {
      if (i > 0) literal(", ");
      AppendRepr(list->items[i], out);
    }
    literal(!list->is_tuple ? "]" : list->items.size() == 1 ? ",)" : ")");
  } else if (const Dict* dict = value.dict()) {
    literal("{");
    for (size_t i = 0; i < dict->entries.size(); ++i) {
      if (i > 0) literal(", ");
      AppendRepr(dict->entries[i].first, out);
      literal(": ");
      AppendRepr(dict->entries[i].second, out);
    }
    literal("}");
  } else {
    literal(ScalarText(value));
  }
}

class JsonWriter {
 public:
  explicit JsonWriter(const JsonStyle& style) : style_(style) {}

  void Write(const Value& value, int64_t level) {
    if (const Text* text = value.text()) return AppendQuoted(*text, '"', JsonEscape, out_);
    if (const List* list = value.list()) {
      return WriteAll(list->items.size(), "[]", level,
                      [&](size_t i) { Write(list->items[i], level + 1); });
    }
    if (const Dict* dict = value.dict()) return WriteDict(*dict, level);
    if (value.is_none()) return Literal("null");
    if (value.is_bool()) return Literal(value.IsTrue() ? "true" : "false");
    if (!value.is_number())
      throw Failure(fmt::format("JSON has no value of the kind {}", value.kind()));
    Literal(ScalarText(value));
  }

  Text Take() { return std::move(out_); }

 private:
  void Literal(std::string_view bytes) { out_.Append(bytes, false); }

  void NewLine(int64_t level) {
    if (style_.indent < 0) return;
    Literal("\n" + std::string(static_cast<size_t>(style_.indent * level), ' '));
  }

  template <class WriteItem>
  void WriteAll(size_t count, std::string_view brackets, int64_t level, const WriteItem& item) {
    Literal(brackets.substr(0, 1));
    for (size_t i = 0; i < count; ++i) {
      if (i > 0) Literal(style_.item_separator);
      NewLine(level + 1);
      item(i);
    }
    if (count > 0) NewLine(level);
    Literal(brackets.substr(1));
  }

  void WriteDict(const Dict& dict, int64_t level) {
    std::vector<size_t> order(dict.entries.size());
    std::iota(order.begin(), order.end(), size_t{0});
    const auto key = [&](size_t i) { return dict.entries[i].first.ToText().bytes(); };
    if (style_.sort_keys)
      std::stable_sort(order.begin(), order.end(),
                       [&](size_t a, size_t b) { return key(a) < key(b); });
    WriteAll(order.size(), "{}", level, [&](size_t i) {
      const auto& [name, value] = dict.entries[order[i]];
      if (!name.text()) throw Failure("tojson of a dict with a key that is no string");
      AppendQuoted(*name.text(), '"', JsonEscape, out_);
      Literal(style_.key_separator);
      Write(value, level + 1);
    });
  }

  const JsonStyle& style_;
  Text out_;
};

}  // namespace

Text Repr(const Value& value) {
  Text out;
  AppendRepr(value, out);
  return out;
}

Text JsonText(const Value& value, const JsonStyle& style) {
  JsonWriter writer(style);
  writer.Write(value, 0);
  return writer.Take();
}

}  // namespace lwm::jinja
