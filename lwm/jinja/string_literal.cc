#include "lwm/jinja/string_literal.h"

#include "lwm/base/error.h"
#include "lwm/jinja/lexer.h"
#include "lwm/jinja/text.h"

namespace lwm::jinja {
namespace {

constexpr std::string_view kEscapes = "\n\\'\"abfnrtv";
constexpr std::string_view kValues = "\0\\'\"\a\b\f\n\r\t\v";

int DigitOf(char c) {
  if (c >= '0' && c <= '9') return c - '0';
  const char lower = static_cast<char>(c | 0x20);
  return lower >= 'a' && lower <= 'f' ? lower - 'a' + 10 : 99;
}

// Up to `most` digits of the base.
char32_t TakeNumber(std::string_view& rest, size_t most, int base, size_t& taken) {
  char32_t code = 0;
  for (taken = 0; taken < most && taken < rest.size() && DigitOf(rest[taken]) < base; ++taken)
    code = code * static_cast<char32_t>(base) + static_cast<char32_t>(DigitOf(rest[taken]));
  rest.remove_prefix(taken);
  return code;
}

}  // namespace

std::string StringValue(std::string_view inside, const std::string& where, int line) {
  std::string value;
  while (!inside.empty()) {
    const char c = inside[0];
    inside.remove_prefix(1);
    if (c != '\\' || inside.empty()) {
      value += c;
      continue;
    }
    const char escape = inside[0];
    const size_t known = kEscapes.find(escape);
    if (known != std::string_view::npos) {
      inside.remove_prefix(1);
      if (known > 0) value += kValues[known];  // a line end after a backslash is nothing
      continue;
    }
    const size_t wanted = escape == 'x' ? 2 : escape == 'u' ? 4 : escape == 'U' ? 8 : 0;
    const bool octal = escape >= '0' && escape <= '7';
    if (wanted == 0 && !octal) {
      value += '\\';
      continue;
    }
    if (!octal) inside.remove_prefix(1);
    size_t taken = 0;
    const char32_t code = TakeNumber(inside, octal ? 3 : wanted, octal ? 8 : 16, taken);
    if ((!octal && taken != wanted) || code > 0x10FFFF || (code >= 0xD800 && code < 0xE000))
      FailAt(where, line, Cat("a string holds a broken \\", escape, " escape"));
    value += Utf8Of(code);
  }
  return value;
}

}  // namespace lwm::jinja
