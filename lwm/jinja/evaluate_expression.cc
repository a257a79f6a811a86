#include <chrono>

#include "lwm/base/error.h"
#include "lwm/jinja/access.h"
#include "lwm/jinja/evaluator.h"
#include "lwm/jinja/failure.h"
#include "lwm/jinja/functions.h"
#include "lwm/jinja/lexer.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

using Kind = Expression::Kind;

void RefuseSpace(const Value& value) {
  if (value.space()) Fail("a namespace inside of another value is not supported");
}

int64_t SecondsNow() {
  return std::chrono::duration_cast<std::chrono::seconds>(
             std::chrono::system_clock::now().time_since_epoch())
      .count();
}

}  // namespace

Value Evaluator::Evaluate(const Expression& expression) {
  try {
    const Nesting nesting(depth_);
    RequireShallow();
    budget_.Step();
    return EvaluateKind(expression);
  } catch (const Failure& failure) {
    FailAt(where_, expression.line, failure.what());
  }
}

Value Evaluator::EvaluateKind(const Expression& expression) {
  const auto arg = [&](size_t i) { return Evaluate(*expression.args[i]); };
  switch (expression.kind) {
    case Kind::kConstant:
      return expression.constant;
    case Kind::kName:
      return EvaluateName(expression);
    case Kind::kList:
    case Kind::kTuple:
      return EvaluateList(expression);
    case Kind::kDict:
      return EvaluateDict(expression);
    case Kind::kAttribute:
      return Attribute(arg(0), expression.name);
    case Kind::kItem: {
      const Value value = arg(0);
      return Item(value, arg(1), budget_);
    }
    case Kind::kSlice:
      return EvaluateSlice(expression);
    case Kind::kCall:
      return EvaluateCall(expression);
    case Kind::kFilter: {
      const Value value = arg(0);
      return CallFilter(value, ArgumentsOf(expression, expression.name), budget_);
    }
    case Kind::kTest: {
      const Value value = arg(0);
      return Value::Of(CallTest(value, ArgumentsOf(expression, expression.name), budget_));
    }
    case Kind::kNot:
      return Value::Of(!arg(0).IsTrue());
    case Kind::kSign:
      return Signed(expression.name, arg(0));
    case Kind::kArithmetic: {
      const Value left = arg(0);
      return Arithmetic(expression.name, left, arg(1), budget_);
    }
    case Kind::kConcat:
      return EvaluateConcat(expression);
    case Kind::kCompare:
      return EvaluateCompare(expression);
    case Kind::kAnd:
    case Kind::kOr:
    case Kind::kTernary:
      return EvaluateLogic(expression);
  }
  return {};
}

Value Evaluator::EvaluateName(const Expression& expression) {
  if (const Value* found = Find(expression.name)) return *found;
  if (IsFunction(expression.name) || expression.name == "raise_exception")
    return Value::Of(Callable{.name = expression.name});
  return Value::MissingNamed(expression.name);
}

Value Evaluator::EvaluateSlice(const Expression& expression) {
  const auto bound = [&](size_t i) {
    return expression.args[i] ? Evaluate(*expression.args[i]) : Value();
  };
  const Value value = bound(0), begin = bound(1), end = bound(2), step = bound(3);
  return Slice(value, begin, end, step, budget_);
}

Value Evaluator::EvaluateList(const Expression& expression) {
  std::vector<Value> items;
  budget_.Spend(expression.args.size() * sizeof(Value));
  for (const ExpressionPtr& item : expression.args) {
    items.push_back(Evaluate(*item));
    RefuseSpace(items.back());
  }
  return Value::OfList(std::move(items), expression.kind == Kind::kTuple);
}

Value Evaluator::EvaluateDict(const Expression& expression) {
  std::vector<std::pair<Value, Value>> entries;
  budget_.Spend(expression.args.size() * sizeof(Value));
  for (size_t i = 0; i < expression.args.size(); i += 2) {
    Value key = Evaluate(*expression.args[i]);
    if (!key.text() && !key.is_number()) Fail("a dict's key is ", key.kind());
    Value value = Evaluate(*expression.args[i + 1]);
    RefuseSpace(value);
    std::erase_if(entries, [&](const auto& entry) { return entry.first.Equals(key); });
    entries.emplace_back(std::move(key), std::move(value));
  }
  return Value::OfDict(std::move(entries));
}

Value Evaluator::EvaluateConcat(const Expression& expression) {
  Text text;
  for (const ExpressionPtr& part : expression.args) {
    const Text next = TextOf(Evaluate(*part), budget_);
    budget_.Spend(text.size());
    text.Append(next);
  }
  return Value::Of(std::move(text));
}

Value Evaluator::EvaluateCompare(const Expression& expression) {
  Value left = Evaluate(*expression.args[0]);
  for (size_t i = 0; i < expression.operators.size(); ++i) {
    Value right = Evaluate(*expression.args[i + 1]);
    if (!Compares(expression.operators[i], left, right, budget_)) return Value::Of(false);
    left = std::move(right);
  }
  return Value::Of(true);
}

Value Evaluator::EvaluateLogic(const Expression& expression) {
  if (expression.kind == Kind::kTernary) {
    const bool first = Evaluate(*expression.args[1]).IsTrue();
    const ExpressionPtr& chosen = expression.args[first ? 0 : 2];
    return chosen ? Evaluate(*chosen) : Value::MissingNamed("the missing else of an if");
  }
  Value left = Evaluate(*expression.args[0]);
  return left.IsTrue() == (expression.kind == Kind::kAnd) ? Evaluate(*expression.args[1]) : left;
}

Arguments Evaluator::ArgumentsOf(const Expression& expression, std::string callee) {
  std::vector<Value> positional;
  for (size_t i = 1; i < expression.args.size(); ++i)
    positional.push_back(Evaluate(*expression.args[i]));
  Arguments::Named named;
  for (const auto& [name, value] : expression.named) named.emplace_back(name, Evaluate(*value));
  return {std::move(callee), std::move(positional), std::move(named)};
}

Value Evaluator::EvaluateCall(const Expression& expression) {
  const Value callee = Evaluate(*expression.args[0]);
  if (callee.is_undefined())
    Fail("\"", callee.missing_name(), "\" is called, but there is no such function or method in ",
         "chat templates");
  const Callable* callable = callee.callable();
  if (!callable) Fail("a value of the kind ", callee.kind(), " is called");
  Arguments arguments = ArgumentsOf(expression, callable->name);
  if (callable->macro) return CallMacro(*callable->macro, arguments);
  if (!callable->self.is_undefined())
    return CallMethod(callable->self, std::move(arguments), budget_);
  if (callable->name == "raise_exception") {
    arguments.Accept({"message"});
    throw Error(ErrorCode::kInvalidArgument,
                Cat(where_, ":", expression.line, ": the chat template ",
                    "refuses the conversation: ", arguments.At(0).ToText().bytes()));
  }
  return CallFunction(std::move(arguments), options_.now < 0 ? SecondsNow() : options_.now,
                      budget_);
}

// A macro sees its arguments and the variables outside of all loops.
Value Evaluator::CallMacro(const Macro& macro, const Arguments& arguments) {
  if (arguments.positional().size() > macro.parameters.size())
    Fail("the macro ", macro.name, " takes ", macro.parameters.size(), " arguments, not ",
         arguments.positional().size());
  budget_.Step(scopes_[0].size() + scopes_[1].size());
  std::vector<Scope> outer = {scopes_[0], scopes_[1], {}};
  std::swap(outer, scopes_);
  for (size_t i = 0; i < macro.parameters.size(); ++i) {
    Value value = Value::MissingNamed(macro.parameters[i]);
    if (i < arguments.positional().size())
      value = arguments.positional()[i];
    else if (macro.defaults[i])
      value = Evaluate(*macro.defaults[i]);
    Set(macro.parameters[i], std::move(value));
  }
  for (const auto& [name, value] : arguments.named()) {
    bool known = false;
    for (const std::string& parameter : macro.parameters) known = known || parameter == name;
    if (!known) Fail("the macro ", macro.name, " has no argument ", name);
    Set(name, value);
  }
  Text text;
  RunBlock(macro.body, text);
  std::swap(outer, scopes_);
  return Value::Of(std::move(text));
}

}  // namespace lwm::jinja
