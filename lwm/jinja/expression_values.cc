// Constants, names, lists, dicts and parentheses.
#include <charconv>

#include "lwm/base/error.h"
#include "lwm/jinja/expression_parser.h"

namespace lwm::jinja {

ExpressionPtr ExpressionParser::ParsePrimary() {
  if (tokens_.TakeOperator("(")) return ParseParentheses();
  if (tokens_.TakeOperator("[")) return ParseListItems();
  if (tokens_.TakeOperator("{")) return ParseDictItems();
  if (!tokens_.Is(Token::Kind::kName)) return ParseConstant();
  const Token name = tokens_.Take();
  Expression constant{.kind = Kind::kConstant, .line = name.line};
  if (name.text == "true" || name.text == "True")
    constant.constant = Value::Of(true);
  else if (name.text == "false" || name.text == "False")
    constant.constant = Value::Of(false);
  else if (name.text == "none" || name.text == "None")
    constant.constant = Value::OfNone();
  else
    return Make(Kind::kName, name.line, name.text, {});
  return Finish(std::move(constant));
}

ExpressionPtr ExpressionParser::ParseConstant() {
  Expression constant{.kind = Kind::kConstant, .line = tokens_.line()};
  if (tokens_.Is(Token::Kind::kString)) {
    std::string text;
    while (tokens_.Is(Token::Kind::kString)) text += tokens_.Take().text;
    constant.constant = Value::Of(Text(std::move(text)));
  } else if (tokens_.Is(Token::Kind::kInteger)) {
    const std::string digits = tokens_.Take().text;
    int64_t value = 0;
    if (std::from_chars(digits.data(), digits.data() + digits.size(), value).ec != std::errc())
      tokens_.Fail(Cat("the number ", digits.substr(0, 30), " is too large"));
    constant.constant = Value::Of(value);
  } else if (tokens_.Is(Token::Kind::kFloat)) {
    const std::string digits = tokens_.Take().text;
    double value = 0;
    std::from_chars(digits.data(), digits.data() + digits.size(), value);
    constant.constant = Value::Of(value);
  } else {
    tokens_.FailUnexpected("a value");
  }
  return Finish(std::move(constant));
}

ExpressionPtr ExpressionParser::ParseParentheses() {
  const int line = tokens_.line();
  if (tokens_.TakeOperator(")")) return Make(Kind::kTuple, line, "", {});
  ExpressionPtr inside = ParseTuple(true);
  tokens_.WantOperator(")");
  return inside;
}

ExpressionPtr ExpressionParser::ParseListItems() {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> items;
  while (!tokens_.IsOperator("]")) {
    if (!items.empty()) tokens_.WantOperator(",");
    if (tokens_.IsOperator("]")) break;
    items.push_back(Parse());
  }
  tokens_.Take();
  return Make(Kind::kList, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::ParseDictItems() {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> items;
  while (!tokens_.IsOperator("}")) {
    if (!items.empty()) tokens_.WantOperator(",");
    if (tokens_.IsOperator("}")) break;
    items.push_back(Parse());
    tokens_.WantOperator(":");
    items.push_back(Parse());
  }
  tokens_.Take();
  return Make(Kind::kDict, line, "", std::move(items));
}

}  // namespace lwm::jinja
