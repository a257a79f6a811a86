#include "lwm/jinja/text.h"

#include <fmt/format.h>
#include <locale.h>
#include <wctype.h>

#include <algorithm>
#include <iterator>

namespace lwm::jinja {
namespace {

struct Range {
  char32_t first, last;
};

// Characters of SpecialCasing.txt: their upper, title or lower case is not one character.
constexpr Range kSpecialCase[] = {
    {0xDF, 0xDF},     {0x130, 0x131},   {0x149, 0x149},   {0x17F, 0x17F},   {0x1C4, 0x1CC},
    {0x1F0, 0x1F3},   {0x345, 0x345},   {0x390, 0x390},   {0x3A3, 0x3A3},   {0x3B0, 0x3B0},
    {0x3C2, 0x3C3},   {0x587, 0x587},   {0x10D0, 0x10FF}, {0x1C90, 0x1CBF}, {0x1E96, 0x1E9E},
    {0x1F50, 0x1F57}, {0x1F80, 0x1FFC}, {0xFB00, 0xFB17}};

locale_t UnicodeLocale() {
  static const locale_t locale = newlocale(LC_CTYPE_MASK, "C.UTF-8", nullptr);
  return locale;
}

char32_t Cased(char32_t code, bool upper) {
  if (code < 0x80) {
    const bool changes = upper ? code >= 'a' && code <= 'z' : code >= 'A' && code <= 'Z';
    return changes ? code ^ 0x20 : code;
  }
  const bool special = std::any_of(std::begin(kSpecialCase), std::end(kSpecialCase),
                                   [&](Range r) { return code >= r.first && code <= r.last; });
  if (special || UnicodeLocale() == locale_t{})
    throw Failure(fmt::format("cannot change the case of U+{:04X}", static_cast<uint32_t>(code)));
  const auto wide = static_cast<wint_t>(code);
  return static_cast<char32_t>(upper ? towupper_l(wide, UnicodeLocale())
                                     : towlower_l(wide, UnicodeLocale()));
}

bool HasCase(char32_t code) {
  if (code < 0x80) return (code | 0x20) >= 'a' && (code | 0x20) <= 'z';
  return Cased(code, true) != code || Cased(code, false) != code;
}

}  // namespace

void Text::Append(const Text& text, size_t begin, size_t end) {
  bytes_.append(text.bytes_, begin, end - begin);
  foreign_.append(text.foreign_, begin, end - begin);
}

void Text::Append(std::string_view bytes, bool foreign) {
  bytes_.append(bytes);
  foreign_.append(bytes.size(), foreign ? '\1' : '\0');
}

Text Text::Part(size_t begin, size_t end) const {
  Text part;
  part.Append(*this, begin, end);
  return part;
}

Character CharacterAt(std::string_view text, size_t at) {
  const auto byte = [&](size_t i) { return static_cast<unsigned char>(text[i]); };
  const unsigned lead = byte(at);
  const size_t more = lead < 0xC2 ? 0 : lead < 0xE0 ? 1 : lead < 0xF0 ? 2 : lead < 0xF5 ? 3 : 0;
  if (more == 0 || at + more >= text.size()) return {lead, at + 1};
  char32_t code = lead & (0x3F >> more);
  for (size_t i = at + 1; i <= at + more; ++i) {
    if ((byte(i) & 0xC0) != 0x80) return {lead, at + 1};
    code = code << 6 | (byte(i) & 0x3F);
  }
  return {code, at + more + 1};
}

std::vector<size_t> CharacterStarts(std::string_view text) {
  std::vector<size_t> starts;
  for (size_t at = 0; at < text.size(); at = CharacterAt(text, at).end) starts.push_back(at);
  starts.push_back(text.size());
  return starts;
}

std::string Utf8Of(char32_t code) {
  std::string bytes;
  const auto add = [&](char32_t byte) { bytes += static_cast<char>(byte); };
  if (code < 0x80) {
    add(code);
  } else if (code < 0x800) {
    add(0xC0 | code >> 6);
    add(0x80 | (code & 0x3F));
  } else if (code < 0x10000) {
    add(0xE0 | code >> 12);
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  } else {
    add(0xF0 | code >> 18);
    add(0x80 | (code >> 12 & 0x3F));
    add(0x80 | (code >> 6 & 0x3F));
    add(0x80 | (code & 0x3F));
  }
  return bytes;
}

bool IsSpace(char32_t code) {
  return (code >= 9 && code <= 13) || (code >= 0x1C && code <= 0x20) || code == 0x85 ||
         code == 0xA0 || code == 0x1680 || (code >= 0x2000 && code <= 0x200A) || code == 0x2028 ||
         code == 0x2029 || code == 0x202F || code == 0x205F || code == 0x3000;
}

Text Strip(const Text& text, bool left, bool right, const std::string* characters) {
  const std::string& bytes = text.bytes();
  std::vector<char32_t> set;
  for (size_t at = 0; characters && at < characters->size();) {
    const Character c = CharacterAt(*characters, at);
    set.push_back(c.code);
    at = c.end;
  }
  const auto goes = [&](char32_t code) {
    return characters ? std::find(set.begin(), set.end(), code) != set.end() : IsSpace(code);
  };
  const std::vector<size_t> starts = CharacterStarts(bytes);
  size_t begin = 0, end = starts.size() - 1;
  while (left && begin < end && goes(CharacterAt(bytes, starts[begin]).code)) ++begin;
  while (right && begin < end && goes(CharacterAt(bytes, starts[end - 1]).code)) --end;
  return text.Part(starts[begin], starts[end]);
}

Text ChangeCase(const Text& text, Case to) {
  Text changed;
  bool after_cased = false;
  for (size_t at = 0; at < text.size();) {
    const Character c = CharacterAt(text.bytes(), at);
    const bool first = to == Case::kTitle ? !after_cased : at == 0;
    const bool upper = to == Case::kUpper || (to != Case::kLower && first);
    changed.Append(Utf8Of(Cased(c.code, upper)), text.is_foreign(at));
    if (to == Case::kTitle) after_cased = HasCase(c.code);
    at = c.end;
  }
  return changed;
}

}  // namespace lwm::jinja
