#pragma once

#include "lwm/jinja/nesting.h"
#include "lwm/jinja/syntax.h"
#include "lwm/jinja/token_stream.h"

namespace lwm::jinja {

// Reads expressions from a stream; each throws Error(kCorruptData) naming the line.
class ExpressionParser {
 public:
  explicit ExpressionParser(TokenStream& tokens) : tokens_(tokens) {}

  ExpressionPtr Parse();                   // with "a if b else c"
  ExpressionPtr ParseWithoutIf();          // stops before "if"
  ExpressionPtr ParseTuple(bool with_if);  // "a, b" is a tuple

 private:
  using Kind = Expression::Kind;

  ExpressionPtr Make(Kind kind, int line, std::string name, std::vector<ExpressionPtr> args);
  ExpressionPtr Finish(Expression expression);
  static std::vector<ExpressionPtr> ListOf(ExpressionPtr a, ExpressionPtr b = nullptr);
  void RequireShallow() const;

  ExpressionPtr ParseOr();
  ExpressionPtr ParseAnd();
  ExpressionPtr ParseNot();
  ExpressionPtr ParseCompare();
  ExpressionPtr ParseSum();
  ExpressionPtr ParseConcat();
  ExpressionPtr ParseProduct();
  ExpressionPtr ParsePower();
  ExpressionPtr ParseUnary(bool with_filters);
  ExpressionPtr ParsePostfix(ExpressionPtr node);
  ExpressionPtr ParseSubscript(ExpressionPtr node);
  ExpressionPtr ParseFilters(ExpressionPtr node);
  ExpressionPtr ParseTest(ExpressionPtr node);
  ExpressionPtr ParseCall(ExpressionPtr callee);
  void ParseArguments(Expression& call);
  bool TakeComparison(std::string& name);

  // constants, names, lists, dicts and parentheses: expression_values.cc
  ExpressionPtr ParsePrimary();
  ExpressionPtr ParseConstant();
  ExpressionPtr ParseListItems();
  ExpressionPtr ParseDictItems();
  ExpressionPtr ParseParentheses();

  TokenStream& tokens_;
  int nesting_ = 0;
};

}  // namespace lwm::jinja
