#pragma once

#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lwm/jinja/value.h"

namespace lwm::jinja {

// The syntax tree of a template.

struct Expression;
using ExpressionPtr = std::unique_ptr<const Expression>;

struct Expression {
  enum class Kind {
    kConstant,    // constant
    kName,        // name
    kList,        // args
    kTuple,       // args
    kDict,        // args: key, value, key, value, ...
    kAttribute,   // args[0].name
    kItem,        // args[0][args[1]]
    kSlice,       // args[0][args[1]:args[2]:args[3]], the last three may be null
    kCall,        // args[0](args[1], ..., named...)
    kFilter,      // args[0] | name(args[1], ..., named...)
    kTest,        // args[0] is name(args[1], ..., named...)
    kNot,         // args[0]
    kSign,        // name ("+" or "-") args[0]
    kArithmetic,  // args[0] name args[1]
    kConcat,      // args[0] ~ args[1] ~ ...
    kCompare,     // args[0] operators[0] args[1] operators[1] args[2] ...
    kAnd,         // args[0] and args[1]
    kOr,
    kTernary,  // args[0] if args[1] else args[2], which may be null
  };
  Kind kind = Kind::kConstant;
  int line = 1;
  int depth = 1;
  std::string name = {};
  Value constant = {};
  std::vector<ExpressionPtr> args = {};
  std::vector<std::pair<std::string, ExpressionPtr>> named = {};
  std::vector<std::string> operators = {};
};

struct Statement;
using Block = std::vector<std::unique_ptr<const Statement>>;

struct Macro {
  std::string name;
  std::vector<std::string> parameters;
  std::vector<ExpressionPtr> defaults;  // of each parameter; null = none
  Block body;
};

struct Statement {
  enum class Kind {
    kData,      // name
    kPrint,     // expression
    kIf,        // branches in order; one without condition is the last
    kFor,       // targets in expression, if condition: body; else: otherwise
    kSet,       // targets = expression
    kSetSpace,  // targets[0].targets[1] = expression
    kSetBlock,  // targets[0] = the text of body
    kMacro,
    kGroup,  // body
    kBreak,
    kContinue,
  };
  struct Branch {
    ExpressionPtr condition;
    Block body;
  };
  Kind kind = Kind::kData;
  int line = 1;
  std::string name = {};
  std::vector<std::string> targets = {};
  ExpressionPtr expression = {}, condition = {};
  std::vector<Branch> branches = {};
  Block body = {}, otherwise = {};
  Macro macro = {};
};

}  // namespace lwm::jinja
