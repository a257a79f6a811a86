#include "lwm/jinja/token_stream.h"

#include "lwm/base/error.h"
#include "lwm/base/text.h"

namespace lwm::jinja {

void TokenStream::WantOperator(std::string_view text) {
  if (!TakeOperator(text)) FailUnexpected(Cat("\"", text, "\""));
}

void TokenStream::Want(Token::Kind kind, std::string_view described) {
  if (!Is(kind)) FailUnexpected(described);
  Take();
}

std::string TokenStream::WantName(std::string_view described) {
  if (!Is(Token::Kind::kName)) FailUnexpected(described);
  return Take().text;
}

void TokenStream::FailUnexpected(std::string_view wanted) const {
  const Token& token = current();
  std::string found = Cat("\"", WithoutControls(token.text.substr(0, 40)), "\"");
  if (token.text.empty())
    found = Is(Token::Kind::kEnd) ? "the end of the template" : "the tag's end";
  Fail(Cat("want ", wanted, ", found ", found));
}

}  // namespace lwm::jinja
