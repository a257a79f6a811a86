#include "lwm/data/added_tokens.h"

#include <algorithm>

#include "lwm/data/utf8.h"

namespace lwm::data {
namespace {

// Characters of words: letters, marks, digits, connecting punctuation, joiners.
constexpr const char* kWordCharacter = R"(^[\p{L}\p{M}\p{Nd}\p{Nl}\p{Pc}\x{200C}\x{200D}])";

// The last character of `text`, "" when there is none.
std::string_view LastCharacter(std::string_view text) {
  for (size_t bytes = 1; bytes <= 4 && bytes <= text.size(); ++bytes) {
    const std::string_view tail = text.substr(text.size() - bytes);
    if (Utf8CharacterLength(tail) == bytes) return tail;
  }
  return "";
}

std::string_view FirstCharacter(std::string_view text) {
  return text.substr(0, Utf8CharacterLength(text));
}

// Unicode's White_Space.
bool IsWhiteSpace(std::string_view character) {
  static constexpr std::string_view kSpaces[] = {
      "\t",     "\n",     "\v",     "\f",     "\r",     " ",      "\u0085", "\u00A0", "\u1680",
      "\u2000", "\u2001", "\u2002", "\u2003", "\u2004", "\u2005", "\u2006", "\u2007", "\u2008",
      "\u2009", "\u200A", "\u2028", "\u2029", "\u202F", "\u205F", "\u3000"};
  return std::find(std::begin(kSpaces), std::end(kSpaces), character) != std::end(kSpaces);
}

size_t WhiteSpaceAtEnd(std::string_view text) {
  size_t bytes = 0;
  for (std::string_view last = LastCharacter(text); IsWhiteSpace(last);
       last = LastCharacter(text.substr(0, text.size() - bytes)))
    bytes += last.size();
  return bytes;
}

size_t WhiteSpaceAtStart(std::string_view text) {
  size_t bytes = 0;
  for (std::string_view first = FirstCharacter(text); IsWhiteSpace(first);
       first = FirstCharacter(text.substr(bytes)))
    bytes += first.size();
  return bytes;
}

// How many of the `size` bytes at `at` are foreign.
size_t ForeignBytes(std::string_view foreign, size_t at, size_t size) {
  const std::string_view part = foreign.empty() ? foreign : foreign.substr(at, size);
  return part.size() - static_cast<size_t>(std::count(part.begin(), part.end(), '\0'));
}

}  // namespace

AddedTokenFinder::AddedTokenFinder(std::vector<AddedToken> tokens)
    : tokens_(std::move(tokens)), word_(kWordCharacter, "added tokens") {
  for (const AddedToken& token : tokens_) {
    if (token.content.empty()) continue;
    has_plain_ = has_plain_ || !token.special;
    Table& table = token.normalized.value_or(false) ? second_ : first_;
    table[static_cast<uint8_t>(token.content[0])].push_back(&token);
  }
  for (Table* table : {&first_, &second_})
    for (auto& list : *table)
      std::stable_sort(list.begin(), list.end(), [](const AddedToken* a, const AddedToken* b) {
        return a->content.size() > b->content.size();
      });
}

bool AddedTokenFinder::IsWholeWord(std::string_view text, size_t begin, size_t end) const {
  return !word_.Matches(LastCharacter(text.substr(0, begin))) &&
         !word_.Matches(FirstCharacter(text.substr(end)));
}

void AddedTokenFinder::SplitBy(const Table& table, std::string_view text, bool with_special,
                               std::string_view foreign, std::vector<Part>& parts) const {
  size_t done = 0;
  // A special token of which only some bytes are foreign would hide the template's own after it.
  const auto fits = [&](const AddedToken* token, size_t at) {
    if (!text.substr(at).starts_with(token->content)) return false;
    const size_t strange = token->special ? ForeignBytes(foreign, at, token->content.size()) : 0;
    return strange == 0 || strange == token->content.size();
  };
  for (size_t at = 0; at < text.size();) {
    const auto& candidates = table[static_cast<uint8_t>(text[at])];
    const auto found = std::find_if(candidates.begin(), candidates.end(),
                                    [&](const AddedToken* token) { return fits(token, at); });
    if (found == candidates.end()) {
      ++at;
      continue;
    }
    const AddedToken& token = **found;
    size_t begin = at, end = at + token.content.size();
    const bool is_text = !with_special || ForeignBytes(foreign, begin, end - begin) > 0;
    at = end;
    if (begin < done || (token.special && is_text)) continue;
    if (token.single_word && !IsWholeWord(text, begin, end)) continue;
    if (token.lstrip) begin -= WhiteSpaceAtEnd(text.substr(done, begin - done));
    if (token.rstrip) end += WhiteSpaceAtStart(text.substr(end));
    if (begin > done) parts.push_back({text.substr(done, begin - done), -1});
    parts.push_back({text.substr(begin, end - begin), token.id});
    done = end;
  }
  if (done < text.size()) parts.push_back({text.substr(done), -1});
}

std::vector<AddedTokenFinder::Part> AddedTokenFinder::Split(std::string_view text,
                                                            bool with_special,
                                                            std::string_view foreign) const {
  std::vector<Part> parts, result;
  SplitBy(first_, text, with_special, foreign, parts);
  for (const Part& part : parts) {
    const auto at = static_cast<size_t>(part.text.data() - text.data());
    if (part.id >= 0)
      result.push_back(part);
    else
      SplitBy(second_, part.text, with_special,
              foreign.empty() ? foreign : foreign.substr(at, part.text.size()), result);
  }
  return result;
}

}  // namespace lwm::data
