#include "lwm/jinja/expression_parser.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::jinja {
namespace {

constexpr int kMaxDepth = 160;

}  // namespace

void ExpressionParser::RequireShallow() const {
  if (nesting_ > kMaxDepth)
    tokens_.Fail(Cat("expressions are nested more than ", kMaxDepth, " deep"));
}

ExpressionPtr ExpressionParser::Finish(Expression expression) {
  int depth = 0;
  for (const ExpressionPtr& arg : expression.args)
    if (arg) depth = std::max(depth, arg->depth);
  for (const auto& [name, arg] : expression.named) depth = std::max(depth, arg->depth);
  expression.depth = depth + 1;
  if (expression.depth > kMaxDepth)
    tokens_.Fail(Cat("an expression has more than ", kMaxDepth, " operations in one another"));
  return std::make_unique<const Expression>(std::move(expression));
}

std::vector<ExpressionPtr> ExpressionParser::ListOf(ExpressionPtr a, ExpressionPtr b) {
  std::vector<ExpressionPtr> list;
  list.push_back(std::move(a));
  if (b) list.push_back(std::move(b));
  return list;
}

ExpressionPtr ExpressionParser::Make(Kind kind, int line, std::string name,
                                     std::vector<ExpressionPtr> args) {
  return Finish({.kind = kind, .line = line, .name = std::move(name), .args = std::move(args)});
}

ExpressionPtr ExpressionParser::Parse() {
  const Nesting nesting(nesting_);
  RequireShallow();
  ExpressionPtr node = ParseOr();
  while (tokens_.IsName("if")) {
    const int line = tokens_.Take().line;
    std::vector<ExpressionPtr> args = ListOf(std::move(node), ParseOr());
    args.push_back(tokens_.TakeName("else") ? Parse() : nullptr);
    node = Make(Kind::kTernary, line, "", std::move(args));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParseWithoutIf() {
  const Nesting nesting(nesting_);
  RequireShallow();
  return ParseOr();
}

ExpressionPtr ExpressionParser::ParseTuple(bool with_if) {
  const int line = tokens_.line();
  const auto item = [&] { return with_if ? Parse() : ParseWithoutIf(); };
  std::vector<ExpressionPtr> items = ListOf(item());
  if (!tokens_.IsOperator(",")) return std::move(items[0]);
  while (tokens_.TakeOperator(",")) {
    if (tokens_.Is(Token::Kind::kBlockEnd) || tokens_.IsOperator(")")) break;
    items.push_back(item());
  }
  return Make(Kind::kTuple, line, "", std::move(items));
}

ExpressionPtr ExpressionParser::ParseOr() {
  ExpressionPtr node = ParseAnd();
  while (tokens_.IsName("or")) {
    const int line = tokens_.Take().line;
    node = Make(Kind::kOr, line, "", ListOf(std::move(node), ParseAnd()));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParseAnd() {
  ExpressionPtr node = ParseNot();
  while (tokens_.IsName("and")) {
    const int line = tokens_.Take().line;
    node = Make(Kind::kAnd, line, "", ListOf(std::move(node), ParseNot()));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParseNot() {
  const Nesting nesting(nesting_);
  RequireShallow();
  if (!tokens_.IsName("not")) return ParseCompare();
  const int line = tokens_.Take().line;
  return Make(Kind::kNot, line, "", ListOf(ParseNot()));
}

bool ExpressionParser::TakeComparison(std::string& name) {
  for (const char* text : {"==", "!=", ">=", "<=", ">", "<"})
    if (tokens_.TakeOperator(text)) {
      name = text;
      return true;
    }
  if (tokens_.TakeName("in")) {
    name = "in";
    return true;
  }
  if (!tokens_.IsName("not") || tokens_.ahead().text != "in" ||
      tokens_.ahead().kind != Token::Kind::kName)
    return false;
  tokens_.Take();
  tokens_.Take();
  name = "not in";
  return true;
}

ExpressionPtr ExpressionParser::ParseCompare() {
  Expression compare{.kind = Kind::kCompare, .line = tokens_.line()};
  compare.args = ListOf(ParseSum());
  for (std::string name; TakeComparison(name);) {
    compare.operators.push_back(name);
    compare.args.push_back(ParseSum());
  }
  if (compare.operators.empty()) return std::move(compare.args[0]);
  return Finish(std::move(compare));
}

ExpressionPtr ExpressionParser::ParseSum() {
  ExpressionPtr node = ParseConcat();
  while (tokens_.IsOperator("+") || tokens_.IsOperator("-")) {
    const Token sign = tokens_.Take();
    node = Make(Kind::kArithmetic, sign.line, sign.text, ListOf(std::move(node), ParseConcat()));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParseConcat() {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> parts = ListOf(ParseProduct());
  while (tokens_.TakeOperator("~")) parts.push_back(ParseProduct());
  if (parts.size() == 1) return std::move(parts[0]);
  return Make(Kind::kConcat, line, "", std::move(parts));
}

ExpressionPtr ExpressionParser::ParseProduct() {
  ExpressionPtr node = ParsePower();
  while (tokens_.IsOperator("*") || tokens_.IsOperator("/") || tokens_.IsOperator("//") ||
         tokens_.IsOperator("%")) {
    const Token sign = tokens_.Take();
    node = Make(Kind::kArithmetic, sign.line, sign.text, ListOf(std::move(node), ParsePower()));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParsePower() {
  ExpressionPtr node = ParseUnary(true);
  while (tokens_.IsOperator("**")) {
    const Token sign = tokens_.Take();
    node = Make(Kind::kArithmetic, sign.line, sign.text, ListOf(std::move(node), ParseUnary(true)));
  }
  return node;
}

ExpressionPtr ExpressionParser::ParseUnary(bool with_filters) {
  const Nesting nesting(nesting_);
  RequireShallow();
  ExpressionPtr node;
  if (tokens_.IsOperator("-") || tokens_.IsOperator("+")) {
    const Token sign = tokens_.Take();
    node = Make(Kind::kSign, sign.line, sign.text, ListOf(ParseUnary(false)));
  } else {
    node = ParsePrimary();
  }
  node = ParsePostfix(std::move(node));
  return with_filters ? ParseFilters(std::move(node)) : std::move(node);
}

ExpressionPtr ExpressionParser::ParsePostfix(ExpressionPtr node) {
  while (true) {
    if (tokens_.IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else if (tokens_.TakeOperator("[")) {
      node = ParseSubscript(std::move(node));
    } else if (tokens_.TakeOperator(".")) {
      const int line = tokens_.line();
      if (tokens_.Is(Token::Kind::kInteger))
        node = Make(Kind::kItem, line, "", ListOf(std::move(node), ParseConstant()));
      else
        node = Make(Kind::kAttribute, line, tokens_.WantName("a name after \".\""),
                    ListOf(std::move(node)));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::ParseSubscript(ExpressionPtr node) {
  const int line = tokens_.line();
  std::vector<ExpressionPtr> args = ListOf(std::move(node));
  bool is_slice = false;
  while (!tokens_.TakeOperator("]")) {
    if (tokens_.TakeOperator(":")) {
      if (!is_slice && args.size() == 1) args.push_back(nullptr);
      is_slice = true;
      if (args.size() == 4) tokens_.FailUnexpected("\"]\"");
      const bool empty = tokens_.IsOperator(":") || tokens_.IsOperator("]");
      args.push_back(empty ? nullptr : Parse());
    } else if (args.size() == 1 && !is_slice) {
      args.push_back(Parse());
    } else {
      tokens_.FailUnexpected("\"]\"");
    }
  }
  if (args.size() == 1) tokens_.Fail("an index is empty");
  args.resize(is_slice ? 4 : 2);
  return Make(is_slice ? Kind::kSlice : Kind::kItem, line, "", std::move(args));
}

ExpressionPtr ExpressionParser::ParseFilters(ExpressionPtr node) {
  while (true) {
    if (tokens_.TakeOperator("|")) {
      Expression filter{.kind = Kind::kFilter, .line = tokens_.line()};
      filter.name = tokens_.WantName("a filter's name after \"|\"");
      filter.args = ListOf(std::move(node));
      if (tokens_.IsOperator("(")) ParseArguments(filter);
      node = Finish(std::move(filter));
    } else if (tokens_.IsName("is")) {
      node = ParseTest(std::move(node));
    } else if (tokens_.IsOperator("(")) {
      node = ParseCall(std::move(node));
    } else {
      return node;
    }
  }
}

ExpressionPtr ExpressionParser::ParseTest(ExpressionPtr node) {
  Expression test{.kind = Kind::kTest, .line = tokens_.Take().line};
  const bool negated = tokens_.TakeName("not");
  test.name = tokens_.WantName("a test's name after \"is\"");
  test.args = ListOf(std::move(node));
  using TokenKind = Token::Kind;
  const bool is_name = tokens_.Is(TokenKind::kName) && !tokens_.IsName("else") &&
                       !tokens_.IsName("or") && !tokens_.IsName("and") && !tokens_.IsName("if");
  if (tokens_.IsOperator("(")) {
    ParseArguments(test);
  } else if (is_name || tokens_.Is(TokenKind::kString) || tokens_.Is(TokenKind::kInteger) ||
             tokens_.Is(TokenKind::kFloat) || tokens_.IsOperator("[") || tokens_.IsOperator("{")) {
    if (tokens_.IsName("is")) tokens_.Fail("tests cannot be chained with \"is\"");
    test.args.push_back(ParsePostfix(ParsePrimary()));
  }
  const int line = test.line;
  ExpressionPtr result = Finish(std::move(test));
  return negated ? Make(Kind::kNot, line, "", ListOf(std::move(result))) : std::move(result);
}

ExpressionPtr ExpressionParser::ParseCall(ExpressionPtr callee) {
  Expression call{.kind = Kind::kCall, .line = tokens_.line()};
  call.args = ListOf(std::move(callee));
  ParseArguments(call);
  return Finish(std::move(call));
}

void ExpressionParser::ParseArguments(Expression& call) {
  tokens_.WantOperator("(");
  for (bool first = true; !tokens_.TakeOperator(")"); first = false) {
    if (!first) {
      tokens_.WantOperator(",");
      if (tokens_.TakeOperator(")")) return;
    }
    if (tokens_.IsOperator("*") || tokens_.IsOperator("**"))
      tokens_.Fail("arguments with * or ** are not supported");
    const Token& ahead = tokens_.ahead();
    if (tokens_.Is(Token::Kind::kName) && ahead.kind == Token::Kind::kOperator &&
        ahead.text == "=") {
      std::string name = tokens_.Take().text;
      tokens_.Take();
      call.named.emplace_back(std::move(name), Parse());
    } else {
      if (!call.named.empty()) tokens_.Fail("an argument without name follows one with a name");
      call.args.push_back(Parse());
    }
  }
}

}  // namespace lwm::jinja
