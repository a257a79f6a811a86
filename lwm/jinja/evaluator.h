#pragma once

#include <cstdint>
#include <string>
#include <utility>
#include <vector>

#include "lwm/jinja/arguments.h"
#include "lwm/jinja/budget.h"
#include "lwm/jinja/nesting.h"
#include "lwm/jinja/syntax.h"
#include "lwm/jinja/template.h"
#include "lwm/jinja/value.h"

namespace lwm::jinja {

// One rendering of a template. Throws as Template::Render does.
class Evaluator {
 public:
  Evaluator(const std::string& where, const Variables& variables, const RenderOptions& options);

  Text Run(const Block& block);

 private:
  enum class Flow { kNext, kBreak, kContinue };
  using Scope = std::vector<std::pair<std::string, Value>>;

  // statements: evaluator.cc
  Flow RunBlock(const Block& block, Text& out);
  Flow RunStatement(const Statement& statement, Text& out);
  Flow RunIf(const Statement& statement, Text& out);
  Flow RunFor(const Statement& statement, Text& out);
  void RunSet(const Statement& statement);
  void RunSetSpace(const Statement& statement);
  void Write(const Text& text, Text& out);
  std::vector<Value> LoopItems(const Statement& statement);
  Value LoopVariable(const std::vector<Value>& items, size_t index);
  void Unpack(const std::vector<std::string>& targets, const Value& value);

  // expressions: evaluate_expression.cc
  Value Evaluate(const Expression& expression);
  Value EvaluateKind(const Expression& expression);
  Value EvaluateName(const Expression& expression);
  Value EvaluateSlice(const Expression& expression);
  Value EvaluateList(const Expression& expression);
  Value EvaluateDict(const Expression& expression);
  Value EvaluateConcat(const Expression& expression);
  Value EvaluateCompare(const Expression& expression);
  Value EvaluateLogic(const Expression& expression);
  Value EvaluateCall(const Expression& expression);
  Value CallMacro(const Macro& macro, const Arguments& arguments);
  Arguments ArgumentsOf(const Expression& expression, std::string callee);

  void RequireShallow() const;
  void Set(const std::string& name, Value value);  // in the innermost scope
  const Value* Find(const std::string& name) const;

  const std::string& where_;
  const RenderOptions& options_;
  Budget budget_;
  std::vector<Scope> scopes_;  // the innermost last
  int depth_ = 0;              // of expressions and blocks in one another, macros included
};

}  // namespace lwm::jinja
