#pragma once

#include <string>
#include <string_view>
#include <vector>

namespace lwm::jinja {

struct Token {
  enum class Kind {
    kData,  // text outside of tags
    kBlockBegin,
    kBlockEnd,
    kVariableBegin,
    kVariableEnd,
    kName,
    kString,
    kInteger,
    kFloat,
    kOperator,
    kEnd
  };
  Kind kind = Kind::kEnd;
  std::string text;  // of a string: its value
  int line = 1;
};

// The tokens of a template, with white space removed as trim_blocks, lstrip_blocks and the signs
// in "{%-", "-%}", "{%+" and "+%}" say; comments and raw blocks are resolved. Ends with kEnd.
// Throws Error(kCorruptData) naming `where` and the line.
std::vector<Token> Tokenize(std::string_view source, const std::string& where);

// Throws Error(kCorruptData), "where:line: problem".
[[noreturn]] void FailAt(const std::string& where, int line, const std::string& problem);

}  // namespace lwm::jinja
