#define PCRE2_CODE_UNIT_WIDTH 8
#include "lwm/data/pattern_pcre2.h"

#include <pcre2.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/data/utf8.h"

namespace lwm::data {
namespace {

struct FreeMatch {
  void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
};
using MatchData = std::unique_ptr<pcre2_match_data, FreeMatch>;

pcre2_code* Code(void* code) { return static_cast<pcre2_code*>(code); }

// Whether there is a match from `from` on.
bool Find(pcre2_code* code, std::string_view text, size_t from, const MatchData& match) {
  const int result = pcre2_match(code, reinterpret_cast<PCRE2_SPTR>(text.data()), text.size(), from,
                                 PCRE2_NO_UTF_CHECK, match.get(), nullptr);
  if (result == PCRE2_ERROR_NOMATCH) return false;
  LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, result > 0,
                 "the tokenizer's expression takes too much time or memory on a text of ",
                 text.size(), " bytes (PCRE2 error ", result, ")");
  return true;
}

}  // namespace

void Pattern::FreeCode::operator()(void* code) const { pcre2_code_free(Code(code)); }

Pattern::Pattern(const std::string& expression, const std::string& where) {
  int error = 0;
  PCRE2_SIZE offset = 0;
  code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                            PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, code_ != nullptr, where, ": not a regular expression at ",
                 offset, ": ", expression);
  // Its failure only makes matching slower.
  pcre2_jit_compile(Code(code_.get()), PCRE2_JIT_COMPLETE);
}

void Pattern::Cut(std::string_view text, std::vector<std::string_view>& parts) const {
  pcre2_code* code = Code(code_.get());
  const MatchData match(pcre2_match_data_create_from_pattern(code, nullptr));
  size_t done = 0, from = 0;
  while (from < text.size() && Find(code, text, from, match)) {
    const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
    if (range[1] == range[0]) {
      from = range[1] + std::max<size_t>(1, Utf8CharacterLength(text.substr(range[1])));
      continue;
    }
    if (range[0] > done) parts.push_back(text.substr(done, range[0] - done));
    parts.push_back(text.substr(range[0], range[1] - range[0]));
    done = from = range[1];
  }
  if (done < text.size()) parts.push_back(text.substr(done));
}

bool Pattern::Matches(std::string_view text) const {
  pcre2_code* code = Code(code_.get());
  const MatchData match(pcre2_match_data_create_from_pattern(code, nullptr));
  return Find(code, text, 0, match);
}

}  // namespace lwm::data
