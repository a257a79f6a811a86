#pragma once

#include <array>
#include <cstdint>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/data/pattern_pcre2.h"

namespace lwm::data {

// A token with a text of its own, found in a text before the vocabulary's pieces are.
struct AddedToken {
  int32_t id = -1;
  std::string content;
  bool special = false;              // a control token: plain text unless it is asked for
  bool lstrip = false;               // takes the white space before it
  bool rstrip = false;               // takes the white space after it
  bool single_word = false;          // only between characters that are no part of a word
  std::optional<bool> normalized{};  // looked for only after all those that are not
};

// Finds added tokens in texts, by the rules of Hugging Face's tokenizers: of those that begin at
// the same place the longest; tokens that are not `normalized` before the others; a special token
// that is not asked for is plain text, and nothing is looked for inside it. Immutable.
class AddedTokenFinder {
 public:
  explicit AddedTokenFinder(std::vector<AddedToken> tokens);
  AddedTokenFinder(const AddedTokenFinder&) = delete;  // the tables point into the tokens
  AddedTokenFinder& operator=(const AddedTokenFinder&) = delete;

  // A token, or, with id -1, text between tokens; never empty.
  struct Part {
    std::string_view text;
    int32_t id = -1;
  };
  // `text` in parts, which point into it. White space that a token takes is in its part. With
  // `foreign`, one entry per byte: those that are not 0 belong to no special token.
  // Cost: one look-up per byte, more where a token's first byte occurs.
  std::vector<Part> Split(std::string_view text, bool with_special,
                          std::string_view foreign = {}) const;

  bool has_plain() const { return has_plain_; }  // tokens that are not special
  const std::vector<AddedToken>& tokens() const { return tokens_; }

 private:
  // Tokens by their first byte, the longest first.
  using Table = std::array<std::vector<const AddedToken*>, 256>;

  void SplitBy(const Table& table, std::string_view text, bool with_special,
               std::string_view foreign, std::vector<Part>& parts) const;
  bool IsWholeWord(std::string_view text, size_t begin, size_t end) const;

  std::vector<AddedToken> tokens_;
  Table first_, second_;  // not normalized, normalized
  bool has_plain_ = false;
  Pattern word_;
};

}  // namespace lwm::data
