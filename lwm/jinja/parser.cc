#include "lwm/jinja/parser.h"

#include <algorithm>
#include <initializer_list>
#include <optional>

#include "lwm/base/error.h"
#include "lwm/jinja/expression_parser.h"

namespace lwm::jinja {
namespace {

using Kind = Statement::Kind;

constexpr int kMaxNesting = 48;         // of blocks
constexpr size_t kMaxSource = 1 << 20;  // bytes

class Parser {
 public:
  Parser(std::string_view source, const std::string& where)
      : tokens_(Tokenize(source, where), where), expressions_(tokens_) {}

  Block Run() {
    Block block = ParseBlock({});
    if (!tokens_.Is(Token::Kind::kEnd)) tokens_.FailUnexpected("the end of the template");
    return block;
  }

 private:
  using Names = std::initializer_list<std::string_view>;

  // Statements up to a tag of one of these names, whose name is then current.
  Block ParseBlock(Names ends) {
    if (++nesting_ > kMaxNesting)
      tokens_.Fail(Cat("blocks are nested more than ", kMaxNesting, " deep"));
    Block block;
    while (!tokens_.Is(Token::Kind::kEnd)) {
      if (tokens_.Is(Token::Kind::kData)) {
        const Token data = tokens_.Take();
        Add(block, {.kind = Kind::kData, .line = data.line, .name = data.text});
      } else if (tokens_.Is(Token::Kind::kVariableBegin)) {
        const int line = tokens_.Take().line;
        Add(block,
            {.kind = Kind::kPrint, .line = line, .expression = expressions_.ParseTuple(true)});
        tokens_.Want(Token::Kind::kVariableEnd, "\"}}\"");
      } else {
        tokens_.Want(Token::Kind::kBlockBegin, "a tag");
        if (std::any_of(ends.begin(), ends.end(), [&](auto name) { return tokens_.IsName(name); }))
          break;
        Add(block, ParseStatement());
      }
    }
    --nesting_;
    return block;
  }

  static void Add(Block& block, Statement statement) {
    block.push_back(std::make_unique<const Statement>(std::move(statement)));
  }

  // A body up to {% endNAME %}, that tag included.
  Block ParseBody(std::string_view end, int line) {
    Block body = ParseBlock({end});
    if (!tokens_.TakeName(end))
      tokens_.Fail(Cat("want {% ", end, " %} for the block that begins on line ", line));
    EndTag();
    return body;
  }

  void EndTag() { tokens_.Want(Token::Kind::kBlockEnd, "\"%}\""); }

  Statement ParseStatement() {
    const int line = tokens_.line();
    const std::string name = tokens_.WantName("a tag's name");
    if (name == "if") return ParseIf(line);
    if (name == "for") return ParseFor(line);
    if (name == "set") return ParseSet(line);
    if (name == "macro") return ParseMacro(line);
    if (name == "generation") {
      EndTag();
      return {.kind = Kind::kGroup, .line = line, .body = ParseBody("endgeneration", line)};
    }
    if (name == "break" || name == "continue") {
      if (loops_ == 0) tokens_.Fail(Cat("{% ", name, " %} outside of a loop"));
      EndTag();
      return {.kind = name == "break" ? Kind::kBreak : Kind::kContinue, .line = line};
    }
    const bool ends = name.starts_with("end") || name.starts_with("el");
    tokens_.Fail(Cat("the tag {% ", name, " %} ",
                     ends ? "has no beginning" : "is not supported in chat templates"));
  }

  Statement ParseIf(int line) {
    Statement statement{.kind = Kind::kIf, .line = line};
    bool more = true;
    while (more) {
      Statement::Branch branch;
      branch.condition = expressions_.ParseTuple(true);
      EndTag();
      branch.body = ParseBlock({"elif", "else", "endif"});
      statement.branches.push_back(std::move(branch));
      more = tokens_.TakeName("elif");
    }
    if (tokens_.TakeName("else")) {
      EndTag();
      statement.branches.push_back({nullptr, ParseBlock({"endif"})});
    }
    if (!tokens_.TakeName("endif"))
      tokens_.Fail(Cat("want {% endif %} for the block that begins on line ", line));
    EndTag();
    return statement;
  }

  Statement ParseFor(int line) {
    Statement statement{.kind = Kind::kFor, .line = line};
    statement.targets = ParseTargets();
    if (!tokens_.TakeName("in")) tokens_.FailUnexpected("\"in\"");
    statement.expression = expressions_.ParseTuple(false);
    if (tokens_.TakeName("if")) statement.condition = expressions_.Parse();
    if (tokens_.IsName("recursive")) tokens_.Fail("recursive loops are not supported");
    EndTag();
    ++loops_;
    statement.body = ParseBlock({"else", "endfor"});
    --loops_;
    if (tokens_.TakeName("else")) {
      EndTag();
      statement.otherwise = ParseBlock({"endfor"});
    }
    if (!tokens_.TakeName("endfor"))
      tokens_.Fail(Cat("want {% endfor %} for the loop that begins on line ", line));
    EndTag();
    return statement;
  }

  std::vector<std::string> ParseTargets() {
    const bool in_parentheses = tokens_.TakeOperator("(");
    std::vector<std::string> targets = {tokens_.WantName("a variable's name")};
    while (tokens_.TakeOperator(",")) targets.push_back(tokens_.WantName("a variable's name"));
    if (in_parentheses) tokens_.WantOperator(")");
    return targets;
  }

  Statement ParseSet(int line) {
    Statement statement{.kind = Kind::kSet, .line = line, .targets = ParseTargets()};
    if (statement.targets.size() == 1 && tokens_.TakeOperator(".")) {
      statement.kind = Kind::kSetSpace;
      statement.targets.push_back(tokens_.WantName("an attribute's name"));
    }
    if (tokens_.TakeOperator("=")) {
      statement.expression = expressions_.ParseTuple(true);
      EndTag();
      return statement;
    }
    if (statement.kind == Kind::kSetSpace || statement.targets.size() > 1)
      tokens_.FailUnexpected("\"=\"");
    if (tokens_.IsOperator("|")) tokens_.Fail("filters on {% set %} blocks are not supported");
    EndTag();
    statement.kind = Kind::kSetBlock;
    statement.body = ParseBody("endset", line);
    return statement;
  }

  Statement ParseMacro(int line) {
    if (loops_ > 0 || in_macro_)
      tokens_.Fail("macros inside of loops and macros are not supported");
    Statement statement{.kind = Kind::kMacro, .line = line};
    Macro& macro = statement.macro;
    macro.name = tokens_.WantName("the macro's name");
    tokens_.WantOperator("(");
    while (!tokens_.TakeOperator(")")) {
      if (!macro.parameters.empty()) tokens_.WantOperator(",");
      macro.parameters.push_back(tokens_.WantName("a parameter's name"));
      macro.defaults.push_back(tokens_.TakeOperator("=") ? expressions_.Parse() : nullptr);
    }
    EndTag();
    in_macro_ = true;
    macro.body = ParseBody("endmacro", line);
    in_macro_ = false;
    return statement;
  }

  TokenStream tokens_;
  ExpressionParser expressions_;
  int nesting_ = 0, loops_ = 0;
  bool in_macro_ = false;
};

}  // namespace

Block ParseTemplate(std::string_view source, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, source.size() <= kMaxSource, where, ": a template of ",
                 source.size(), " bytes; at most ", kMaxSource, " are read");
  return Parser(source, where).Run();
}

}  // namespace lwm::jinja
