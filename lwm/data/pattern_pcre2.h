#pragma once

#include <memory>
#include <string>
#include <string_view>
#include <vector>

namespace lwm::data {

// A compiled regular expression over UTF-8 with Unicode classes. Threads: any, after construction.
class Pattern {
 public:
  // Throws Error(kCorruptData) naming `where` when `expression` is none.
  Pattern(const std::string& expression, const std::string& where);

  // Appends the matches in `text` and what lies between them, in order; an empty match cuts
  // nothing. `text` must be valid UTF-8. Throws Error(kResourceExhausted) when matching takes too
  // much time or memory.
  void Cut(std::string_view text, std::vector<std::string_view>& parts) const;

  // Whether `text`, valid UTF-8, holds a match.
  bool Matches(std::string_view text) const;

 private:
  struct FreeCode {
    void operator()(void* code) const;
  };
  std::unique_ptr<void, FreeCode> code_;
};

}  // namespace lwm::data
