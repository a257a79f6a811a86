#pragma once

#include <string>
#include <string_view>
#include <vector>

#include "lwm/jinja/lexer.h"

namespace lwm::jinja {

// Reads tokens one after the other; kEnd is never passed.
class TokenStream {
 public:
  TokenStream(std::vector<Token> tokens, const std::string& where)
      : tokens_(std::move(tokens)), where_(where) {}

  const Token& current() const { return tokens_[at_]; }
  const Token& ahead() const { return tokens_[std::min(at_ + 1, tokens_.size() - 1)]; }
  int line() const { return current().line; }
  bool Is(Token::Kind kind) const { return current().kind == kind; }
  bool IsName(std::string_view name) const {
    return Is(Token::Kind::kName) && current().text == name;
  }
  bool IsOperator(std::string_view text) const {
    return Is(Token::Kind::kOperator) && current().text == text;
  }

  Token Take() { return at_ + 1 < tokens_.size() ? tokens_[at_++] : tokens_[at_]; }
  bool TakeName(std::string_view name) { return IsName(name) && TakeAny(); }
  bool TakeOperator(std::string_view text) { return IsOperator(text) && TakeAny(); }
  void WantOperator(std::string_view text);
  void Want(Token::Kind kind, std::string_view described);
  std::string WantName(std::string_view described);

  [[noreturn]] void Fail(const std::string& problem) const { FailAt(where_, line(), problem); }
  [[noreturn]] void FailUnexpected(std::string_view wanted) const;

 private:
  bool TakeAny() {
    Take();
    return true;
  }

  std::vector<Token> tokens_;
  const std::string& where_;
  size_t at_ = 0;
};

}  // namespace lwm::jinja
