// Statements; expressions are in evaluate_expression.cc.
#include "lwm/jinja/evaluator.h"

#include "lwm/base/error.h"
#include "lwm/jinja/failure.h"
#include "lwm/jinja/lexer.h"
#include "lwm/jinja/operators.h"

namespace lwm::jinja {
namespace {

constexpr int kMaxDepth = 600;

size_t WeightOf(const Variables& variables) {
  size_t weight = 0;
  for (const auto& [name, value] : variables) weight += value.weight();
  return weight;
}

}  // namespace

Evaluator::Evaluator(const std::string& where, const Variables& variables,
                     const RenderOptions& options)
    : where_(where),
      options_(options),
      budget_(options.operations, options.bytes + 16 * static_cast<int64_t>(WeightOf(variables))),
      scopes_({variables, {}}) {}

Text Evaluator::Run(const Block& block) {
  Text out;
  RunBlock(block, out);
  return out;
}

void Evaluator::Set(const std::string& name, Value value) {
  for (auto& [known, old] : scopes_.back())
    if (known == name) {
      old = std::move(value);
      return;
    }
  scopes_.back().emplace_back(name, std::move(value));
}

const Value* Evaluator::Find(const std::string& name) const {
  for (auto scope = scopes_.rbegin(); scope != scopes_.rend(); ++scope)
    for (const auto& [known, value] : *scope)
      if (known == name) return &value;
  return nullptr;
}

void Evaluator::RequireShallow() const {
  if (depth_ > kMaxDepth) Fail("expressions and macros are nested too deeply");
}

Evaluator::Flow Evaluator::RunBlock(const Block& block, Text& out) {
  const Nesting nesting(depth_);
  RequireShallow();
  for (const auto& statement : block) {
    try {
      budget_.Step();
      const Flow flow = RunStatement(*statement, out);
      if (flow != Flow::kNext) return flow;
    } catch (const Failure& failure) {
      FailAt(where_, statement->line, failure.what());
    }
  }
  return Flow::kNext;
}

void Evaluator::Write(const Text& text, Text& out) {
  budget_.Spend(text.size());
  out.Append(text);
}

Evaluator::Flow Evaluator::RunStatement(const Statement& statement, Text& out) {
  using Kind = Statement::Kind;
  switch (statement.kind) {
    case Kind::kData:
      Write(Text(statement.name), out);
      break;
    case Kind::kPrint:
      Write(TextOf(Evaluate(*statement.expression), budget_), out);
      break;
    case Kind::kIf:
      return RunIf(statement, out);
    case Kind::kFor:
      return RunFor(statement, out);
    case Kind::kSet:
      RunSet(statement);
      break;
    case Kind::kSetSpace:
      RunSetSpace(statement);
      break;
    case Kind::kSetBlock: {
      Text text;
      scopes_.emplace_back();
      const Flow flow = RunBlock(statement.body, text);
      scopes_.pop_back();
      if (flow != Flow::kNext) return flow;
      Set(statement.targets[0], Value::Of(std::move(text)));
      break;
    }
    case Kind::kMacro:
      Set(statement.macro.name,
          Value::Of(Callable{.name = statement.macro.name, .macro = &statement.macro}));
      break;
    case Kind::kGroup: {
      scopes_.emplace_back();
      const Flow flow = RunBlock(statement.body, out);
      scopes_.pop_back();
      return flow;
    }
    case Kind::kBreak:
      return Flow::kBreak;
    case Kind::kContinue:
      return Flow::kContinue;
  }
  return Flow::kNext;
}

Evaluator::Flow Evaluator::RunIf(const Statement& statement, Text& out) {
  for (const Statement::Branch& branch : statement.branches)
    if (!branch.condition || Evaluate(*branch.condition).IsTrue())
      return RunBlock(branch.body, out);
  return Flow::kNext;
}

void Evaluator::Unpack(const std::vector<std::string>& targets, const Value& value) {
  if (targets.size() == 1) return Set(targets[0], value);
  const std::vector<Value> items = ItemsOf(value, budget_);
  if (items.size() != targets.size())
    Fail(items.size(), " values for ", targets.size(), " variables");
  for (size_t i = 0; i < items.size(); ++i) Set(targets[i], items[i]);
}

std::vector<Value> Evaluator::LoopItems(const Statement& statement) {
  std::vector<Value> items = ItemsOf(Evaluate(*statement.expression), budget_);
  if (!statement.condition) return items;
  std::vector<Value> kept;
  for (const Value& item : items) {
    scopes_.emplace_back();
    Unpack(statement.targets, item);
    if (Evaluate(*statement.condition).IsTrue()) kept.push_back(item);
    scopes_.pop_back();
  }
  return kept;
}

Value Evaluator::LoopVariable(const std::vector<Value>& items, size_t index) {
  const auto size = static_cast<int64_t>(items.size()), at = static_cast<int64_t>(index);
  std::vector<std::pair<Value, Value>> entries;
  const auto add = [&](const char* name, Value value) {
    entries.emplace_back(Value::Of(Text(name)), std::move(value));
  };
  add("index", Value::Of(at + 1));
  add("index0", Value::Of(at));
  add("revindex", Value::Of(size - at));
  add("revindex0", Value::Of(size - at - 1));
  add("first", Value::Of(at == 0));
  add("last", Value::Of(at + 1 == size));
  add("length", Value::Of(size));
  if (index > 0) add("previtem", items[index - 1]);
  if (index + 1 < items.size()) add("nextitem", items[index + 1]);
  add("cycle", Value::Of(Callable{.name = "cycle", .self = Value::Of(at)}));
  return Value::OfDict(std::move(entries));
}

Evaluator::Flow Evaluator::RunFor(const Statement& statement, Text& out) {
  const std::vector<Value> items = LoopItems(statement);
  if (items.empty()) return RunBlock(statement.otherwise, out);
  for (size_t i = 0; i < items.size(); ++i) {
    budget_.Step();
    scopes_.emplace_back();
    Unpack(statement.targets, items[i]);
    Set("loop", LoopVariable(items, i));
    const Flow flow = RunBlock(statement.body, out);
    scopes_.pop_back();
    if (flow == Flow::kBreak) break;
  }
  return Flow::kNext;
}

void Evaluator::RunSet(const Statement& statement) {
  Unpack(statement.targets, Evaluate(*statement.expression));
}

void Evaluator::RunSetSpace(const Statement& statement) {
  const std::string& name = statement.targets[0];
  const Value* found = Find(name);
  Namespace* space = found ? found->space() : nullptr;
  if (!space) Fail("{% set ", name, ".", statement.targets[1], " %} wants a namespace in ", name);
  Value value = Evaluate(*statement.expression);
  if (value.space()) Fail("a namespace inside of another value is not supported");
  for (auto& [known, old] : space->entries)
    if (known == statement.targets[1]) {
      old = std::move(value);
      return;
    }
  space->entries.emplace_back(statement.targets[1], std::move(value));
}

}  // namespace lwm::jinja
