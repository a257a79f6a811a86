#include "lwm/jinja/lexer.h"

#include <algorithm>
#include <cctype>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/text.h"
#include "lwm/jinja/string_literal.h"
#include "lwm/jinja/text.h"

namespace lwm::jinja {
namespace {

using Kind = Token::Kind;

constexpr std::string_view kOperators[] = {"==", "!=", ">=", "<=", "//", "**", "+", "-", "/",
                                           "*",  "%",  "~",  "[",  "]",  "(",  ")", "{", "}",
                                           ">",  "<",  "=",  ".",  ":",  "|",  ",", ";"};

bool IsNameStart(char c) { return std::isalpha(static_cast<unsigned char>(c)) || c == '_'; }
bool IsDigit(char c) { return std::isdigit(static_cast<unsigned char>(c)) != 0; }
bool IsNamePart(char c) { return IsNameStart(c) || IsDigit(c); }
bool IsBlank(char c) {
  return IsSpace(static_cast<unsigned char>(c)) && static_cast<unsigned char>(c) < 0x80;
}

class Lexer {
 public:
  Lexer(std::string_view source, const std::string& where) : source_(source), where_(where) {}

  std::vector<Token> Run() {
    while (at_ < source_.size()) ReadData();
    Add(Kind::kEnd, "");
    return std::move(tokens_);
  }

 private:
  [[noreturn]] void Fail(const std::string& problem) const { FailAt(where_, line_, problem); }
  bool Sees(std::string_view text) const { return source_.substr(at_).starts_with(text); }
  void Add(Kind kind, std::string text) { tokens_.push_back({kind, std::move(text), line_}); }

  void Skip(size_t count) {
    line_ += static_cast<int>(std::count(source_.begin() + static_cast<std::ptrdiff_t>(at_),
                                         source_.begin() + static_cast<std::ptrdiff_t>(at_ + count),
                                         '\n'));
    at_ += count;
  }

  void SkipBlanks() {
    size_t count = 0;
    while (at_ + count < source_.size() && IsBlank(source_[at_ + count])) ++count;
    Skip(count);
  }

  // Text up to the next tag, then that tag.
  void ReadData() {
    size_t tag = at_;
    while (tag < source_.size() && !IsTag(tag)) ++tag;
    std::string_view data = source_.substr(at_, tag - at_);
    const bool ends = tag == source_.size();
    const char sign = tag + 2 < source_.size() ? source_[tag + 2] : '\0';
    if (!ends && sign == '-') {
      while (!data.empty() && IsBlank(data.back())) data.remove_suffix(1);
    } else if (!ends && source_[tag + 1] != '{' && sign != '+') {
      data = WithoutIndent(data);
    }
    if (!data.empty()) Add(Kind::kData, std::string(data));
    Skip(tag - at_);
    if (!ends) ReadTag(sign == '-' || (sign == '+' && source_[tag + 1] != '{') ? 3 : 2);
  }

  bool IsTag(size_t at) const {
    return source_[at] == '{' && at + 1 < source_.size() &&
           (source_[at + 1] == '{' || source_[at + 1] == '%' || source_[at + 1] == '#');
  }

  // lstrip_blocks: white space between the beginning of a line and a block or comment.
  std::string_view WithoutIndent(std::string_view data) const {
    const size_t newline = data.rfind('\n');
    if (newline == std::string_view::npos && !line_starts_) return data;
    const size_t begin = newline == std::string_view::npos ? 0 : newline + 1;
    return std::all_of(data.begin() + static_cast<std::ptrdiff_t>(begin), data.end(), IsBlank)
               ? data.substr(0, begin)
               : data;
  }

  void ReadTag(size_t opening) {
    const char type = source_[at_ + 1];
    if (type == '#') return SkipComment();
    if (type == '%' && ReadRaw(opening)) return;
    Add(type == '{' ? Kind::kVariableBegin : Kind::kBlockBegin, "");
    Skip(opening);
    ReadCode(type == '{' ? "}}" : "%}", type == '{' ? Kind::kVariableEnd : Kind::kBlockEnd);
  }

  // Takes "SIGN END" and the white space that goes with it, if it comes next. Not the line end
  // after the tag that opens a raw block.
  bool TakeEnd(std::string_view end, bool with_line_end = true) {
    const bool sign = Sees("-") || (Sees("+") && end != "}}");
    if (!source_.substr(std::min(source_.size(), at_ + (sign ? 1 : 0))).starts_with(end))
      return false;
    const char first = source_[at_];
    Skip(end.size() + (sign ? 1 : 0));
    if (first == '-')
      SkipBlanks();
    else if (with_line_end && first != '+' && end != "}}" && Sees("\n"))
      Skip(1);
    line_starts_ = source_[at_ - 1] == '\n';
    return true;
  }

  void SkipComment() {
    const int begin = line_;
    Skip(2);
    while (at_ < source_.size())
      if (TakeEnd("#}"))
        return;
      else
        Skip(1);
    FailAt(where_, begin, "the comment that begins here has no end (want \"#}\")");
  }

  // {% raw %} to {% endraw %} as it stands.
  bool ReadRaw(size_t opening) {
    const size_t before = at_;
    const int line = line_;
    Skip(opening);
    SkipBlanks();
    if (!Sees("raw") || IsNamePart(at_ + 3 < source_.size() ? source_[at_ + 3] : ' ')) {
      at_ = before;
      line_ = line;
      return false;
    }
    Skip(3);
    SkipBlanks();
    if (!TakeEnd("%}", /*with_line_end=*/false)) Fail("want \"%}\" after \"raw\"");
    const size_t begin = at_;
    while (at_ < source_.size()) {
      const size_t end = at_;
      if (!TakeEndRaw()) {
        Skip(1);
        continue;
      }
      std::string_view data = source_.substr(begin, end - begin);
      if (source_[end + 2] == '-')
        while (!data.empty() && IsBlank(data.back())) data.remove_suffix(1);
      else if (source_[end + 2] != '+')
        data = WithoutIndent(data);
      Add(Kind::kData, std::string(data));
      return true;
    }
    FailAt(where_, line, "the raw block that begins here has no end");
  }

  bool TakeEndRaw() {
    if (!Sees("{%")) return false;
    const size_t before = at_;
    const int line = line_;
    Skip(2);
    if (Sees("-") || Sees("+")) Skip(1);
    SkipBlanks();
    if (Sees("endraw")) {
      Skip(6);
      SkipBlanks();
      if (TakeEnd("%}")) return true;
    }
    at_ = before;
    line_ = line;
    return false;
  }

  void ReadCode(std::string_view end, Kind end_kind) {
    const int begin = line_;
    std::string open;  // closing brackets that are due
    while (true) {
      SkipBlanks();
      if (at_ >= source_.size())
        FailAt(where_, begin, Cat("the tag that begins here has no end (want \"", end, "\")"));
      const int line = line_;
      if (open.empty() && TakeEnd(end)) {
        tokens_.push_back({end_kind, "", line});
        return;
      }
      ReadCodeToken(open);
    }
  }

  void ReadCodeToken(std::string& open) {
    const char c = source_[at_];
    if (IsNameStart(c)) return ReadName();
    if (IsDigit(c)) return ReadNumber();
    if (c == '\'' || c == '"') return ReadString(c);
    for (const std::string_view text : kOperators) {
      if (!Sees(text)) continue;
      if (text == "(" || text == "[" || text == "{") {
        open += text == "(" ? ')' : text == "[" ? ']' : '}';
      } else if (text == ")" || text == "]" || text == "}") {
        if (open.empty() || open.back() != text[0]) Fail(Cat("unexpected \"", text, "\""));
        open.pop_back();
      }
      Add(Kind::kOperator, std::string(text));
      return Skip(text.size());
    }
    Fail(Cat("unexpected character \"", WithoutControls(std::string(1, c)), "\""));
  }

  void ReadName() {
    size_t size = 1;
    while (at_ + size < source_.size() && IsNamePart(source_[at_ + size])) ++size;
    Add(Kind::kName, std::string(source_.substr(at_, size)));
    Skip(size);
  }

  void ReadNumber() {
    size_t size = 1;
    bool is_float = false;
    const auto next = [&](size_t ahead) {
      return at_ + size + ahead < source_.size() ? source_[at_ + size + ahead] : '\0';
    };
    while (IsDigit(next(0)) || (next(0) == '_' && IsDigit(next(1))) ||
           (!is_float && next(0) == '.' && IsDigit(next(1)))) {
      is_float = is_float || next(0) == '.';
      ++size;
    }
    if (IsNameStart(next(0)))
      Fail("numbers with a letter (hexadecimal, exponent) are not supported");
    std::string digits(source_.substr(at_, size));
    std::erase(digits, '_');
    Add(is_float ? Kind::kFloat : Kind::kInteger, digits);
    Skip(size);
  }

  void ReadString(char quote) {
    size_t size = 1;
    while (at_ + size < source_.size() && source_[at_ + size] != quote)
      size += source_[at_ + size] == '\\' ? 2 : 1;
    if (at_ + size >= source_.size()) Fail("the string that begins here has no end");
    Add(Kind::kString, StringValue(source_.substr(at_ + 1, size - 1), where_, line_));
    Skip(size + 1);
  }

  std::string_view source_;
  const std::string& where_;
  size_t at_ = 0;
  int line_ = 1;
  bool line_starts_ = true;  // the text that follows stands at the beginning of a line
  std::vector<Token> tokens_;
};

// Line ends as "\n", without the one at the end of the template.
std::string Normalised(std::string_view source) {
  std::string text;
  for (size_t i = 0; i < source.size(); ++i) {
    if (source[i] == '\r' && i + 1 < source.size() && source[i + 1] == '\n') continue;
    text += source[i] == '\r' ? '\n' : source[i];
  }
  if (text.ends_with('\n')) text.pop_back();
  return text;
}

}  // namespace

std::vector<Token> Tokenize(std::string_view source, const std::string& where) {
  const std::string normalised = Normalised(source);
  return Lexer(normalised, where).Run();
}

void FailAt(const std::string& where, int line, const std::string& problem) {
  throw Error(ErrorCode::kCorruptData, Cat(where, ":", line, ": ", problem));
}

}  // namespace lwm::jinja
