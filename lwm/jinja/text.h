#pragma once

#include <cstddef>
#include <cstdint>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/jinja/failure.h"

namespace lwm::jinja {

// UTF-8 text that knows of every byte whether the template wrote it or a variable brought it in, so
// that "<|im_end|>" in a user's words is never taken for the token of that name.
class Text {
 public:
  Text() = default;
  explicit Text(std::string bytes, bool foreign = false)
      : bytes_(std::move(bytes)), foreign_(bytes_.size(), foreign ? '\1' : '\0') {}

  const std::string& bytes() const { return bytes_; }
  const std::string& foreign() const { return foreign_; }  // of each byte: not 0 = from a variable
  size_t size() const { return bytes_.size(); }
  bool empty() const { return bytes_.empty(); }
  bool is_foreign(size_t byte) const { return foreign_[byte] != '\0'; }

  void Append(const Text& text) { Append(text, 0, text.size()); }
  void Append(const Text& text, size_t begin, size_t end);
  void Append(std::string_view bytes, bool foreign);
  Text Part(size_t begin, size_t end) const;  // bytes begin..end

 private:
  std::string bytes_;
  std::string foreign_;
};

// One code point and where it ends. Bytes that are not UTF-8 count as characters of one byte.
struct Character {
  char32_t code = 0;
  size_t end = 0;
};
Character CharacterAt(std::string_view text, size_t at);

// The byte where each code point begins, and the text's size.
std::vector<size_t> CharacterStarts(std::string_view text);
std::string Utf8Of(char32_t code);

bool IsSpace(char32_t code);  // as Python's str.isspace

// The text without leading and trailing white space, or without `characters` where they are given.
Text Strip(const Text& text, bool left, bool right, const std::string* characters = nullptr);

enum class Case { kUpper, kLower, kTitle, kCapitalize };

// As Python's str.upper, lower, title and capitalize. Throws Failure naming a character whose
// change of case makes several characters or depends on its neighbours.
Text ChangeCase(const Text& text, Case to);

}  // namespace lwm::jinja
