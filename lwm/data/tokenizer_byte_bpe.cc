#define PCRE2_CODE_UNIT_WIDTH 8
#include "lwm/data/tokenizer_byte_bpe.h"

#include <pcre2.h>

#include <array>
#include <queue>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/utf8.h"

namespace lwm::data {
namespace {

// A compiled expression. Threads: Cut from any.
class Pattern {
 public:
  Pattern(const std::string& expression, const std::string& where) {
    int error = 0;
    PCRE2_SIZE offset = 0;
    code_.reset(pcre2_compile(reinterpret_cast<PCRE2_SPTR>(expression.data()), expression.size(),
                              PCRE2_UTF | PCRE2_UCP, &error, &offset, nullptr));
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, code_ != nullptr, where,
                   ": not a regular expression at ", offset, ": ", expression);
    pcre2_jit_compile(code_.get(), PCRE2_JIT_COMPLETE);  // without it matching is slower, no more
  }

  // The matches in `text` and what lies between them, in order. `text` must be valid UTF-8.
  void Cut(std::string_view text, std::vector<std::string_view>& parts) const {
    const std::unique_ptr<pcre2_match_data, FreeMatch> match(
        pcre2_match_data_create_from_pattern(code_.get(), nullptr));
    const auto* subject = reinterpret_cast<PCRE2_SPTR>(text.data());
    size_t done = 0, from = 0;
    while (from < text.size()) {
      const int result = pcre2_match(code_.get(), subject, text.size(), from, PCRE2_NO_UTF_CHECK,
                                     match.get(), nullptr);
      if (result == PCRE2_ERROR_NOMATCH) break;
      LWM_REQUIRE_AS(ErrorCode::kResourceExhausted, result > 0,
                     "the tokenizer's expression takes too much time or memory on a text of ",
                     text.size(), " bytes (PCRE2 error ", result, ")");
      const PCRE2_SIZE* range = pcre2_get_ovector_pointer(match.get());
      if (range[1] == range[0]) {  // an empty match cuts nothing
        from = range[1] + std::max<size_t>(1, Utf8CharacterLength(text.substr(range[1])));
        continue;
      }
      if (range[0] > done) parts.push_back(text.substr(done, range[0] - done));
      parts.push_back(text.substr(range[0], range[1] - range[0]));
      done = from = range[1];
    }
    if (done < text.size()) parts.push_back(text.substr(done));
  }

 private:
  struct FreeCode {
    void operator()(pcre2_code* code) const { pcre2_code_free(code); }
  };
  struct FreeMatch {
    void operator()(pcre2_match_data* match) const { pcre2_match_data_free(match); }
  };
  std::unique_ptr<pcre2_code, FreeCode> code_;
};

// GPT-2's letter for each byte, in UTF-8: printable Latin-1 stands for itself, the others are
// numbered from U+0100.
std::array<std::string, 256> MakeLetters() {
  std::array<std::string, 256> letters;
  uint32_t next = 0x100;
  for (uint32_t byte = 0; byte < 256; ++byte) {
    const bool printable = (byte >= 0x21 && byte <= 0x7E) || (byte >= 0xA1 && byte != 0xAD);
    const uint32_t point = printable ? byte : next++;
    letters[byte] = point < 0x80 ? std::string(1, static_cast<char>(point))
                                 : std::string{static_cast<char>(0xC0 | (point >> 6)),
                                               static_cast<char>(0x80 | (point & 0x3F))};
  }
  return letters;
}

uint64_t PairKey(int32_t left, int32_t right) {
  return static_cast<uint64_t>(static_cast<uint32_t>(left)) << 32 | static_cast<uint32_t>(right);
}

class ByteBpeTokenizer : public Tokenizer {
 public:
  ByteBpeTokenizer(const ByteBpeVocabulary& vocabulary, std::string content,
                   const std::string& where)
      : content_(std::move(content)),
        bos_id_(vocabulary.bos_id),
        eos_id_(vocabulary.eos_id),
        unk_id_(vocabulary.unk_id),
        pad_id_(vocabulary.pad_id),
        begins_with_bos_(vocabulary.add_bos && bos_id_ >= 0) {
    const std::array<std::string, 256> letters = MakeLetters();
    std::unordered_map<std::string_view, int32_t> id_of;
    for (size_t id = 0; id < vocabulary.piece_V.size(); ++id)
      id_of.emplace(vocabulary.piece_V[id], static_cast<int32_t>(id));
    const auto find = [&](const std::string& piece) {
      const auto found = id_of.find(piece);
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, found != id_of.end(), where,
                     ": the vocabulary lacks \"", piece, "\"");
      return found->second;
    };
    for (size_t byte = 0; byte < 256; ++byte)
      byte_id_[byte] = id_of.contains(letters[byte]) ? find(letters[byte]) : unk_id_;
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
      const auto& [left, right] = vocabulary.merges[rank];
      merges_.emplace(PairKey(find(left), find(right)),
                      Merge{static_cast<int32_t>(rank), find(left + right)});
    }
    for (const std::string& pattern : vocabulary.patterns) patterns_.emplace_back(pattern, where);
    SetBytes(vocabulary, letters);
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    const std::string valid = ReplaceInvalidUtf8(text);
    std::vector<std::string_view> words;
    if (!valid.empty()) words.push_back(valid);
    for (const Pattern& pattern : patterns_) {
      std::vector<std::string_view> parts;
      for (const std::string_view word : words) pattern.Cut(word, parts);
      words = std::move(parts);
    }
    std::vector<int32_t> ids;
    std::unordered_map<std::string_view, std::vector<int32_t>> known;
    for (const std::string_view word : words) {
      auto& word_ids = known[word];
      if (word_ids.empty()) word_ids = EncodeWord(word);
      ids.insert(ids.end(), word_ids.begin(), word_ids.end());
    }
    return ids;
  }

  std::string TokenBytes(int32_t id) const override {
    LWM_REQUIRE(id >= 0 && id < vocab_size(), "token id ", id,
                " is outside the tokenizer's vocabulary of ", vocab_size());
    return bytes_V_[static_cast<size_t>(id)];
  }
  bool drops_space_at_start(int32_t) const override { return false; }
  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_V_.size()); }
  int32_t bos_id() const override { return bos_id_; }
  int32_t eos_id() const override { return eos_id_; }
  int32_t unk_id() const override { return unk_id_; }
  int32_t pad_id() const override { return pad_id_; }
  bool begins_with_bos() const override { return begins_with_bos_; }
  const std::vector<std::pair<std::string, int32_t>>& special_tokens() const override {
    return special_tokens_;
  }
  std::string file_name() const override { return "tokenizer.json"; }
  const std::string& file_content() const override { return content_; }

 private:
  struct Merge {
    int32_t rank, id;
  };
  struct Symbol {
    int32_t id;
    int64_t previous, next;  // places in the word, -1 = none
  };
  // Rank, place and ids of a pair when it was found; the smallest is merged first.
  using Candidate = std::tuple<int32_t, int64_t, int32_t, int32_t>;

  void SetBytes(const ByteBpeVocabulary& vocabulary, const std::array<std::string, 256>& letters) {
    std::unordered_map<std::string_view, char> byte_of;
    for (size_t byte = 0; byte < 256; ++byte)
      byte_of.emplace(letters[byte], static_cast<char>(byte));
    for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
      std::string_view piece = vocabulary.piece_V[id];
      std::string bytes;
      while (!piece.empty() && !vocabulary.is_special_V[id]) {
        const size_t length = std::max<size_t>(1, Utf8CharacterLength(piece));
        const auto byte = byte_of.find(piece.substr(0, length));
        // An added token is not in byte letters.
        if (byte == byte_of.end())
          bytes += piece.substr(0, length);
        else
          bytes += byte->second;
        piece.remove_prefix(length);
      }
      bytes_V_.push_back(std::move(bytes));
      if (vocabulary.is_special_V[id] && !vocabulary.piece_V[id].empty())
        special_tokens_.emplace_back(vocabulary.piece_V[id], static_cast<int32_t>(id));
    }
  }

  std::vector<int32_t> EncodeWord(std::string_view word) const {
    std::vector<Symbol> symbols;
    for (size_t i = 0; i < word.size(); ++i) {
      const auto at = static_cast<int64_t>(i);
      symbols.push_back(
          {byte_id_[static_cast<uint8_t>(word[i])], at - 1, i + 1 < word.size() ? at + 1 : -1});
    }
    std::priority_queue<Candidate, std::vector<Candidate>, std::greater<>> queue;
    const auto consider = [&](int64_t left) {
      if (left < 0 || symbols[static_cast<size_t>(left)].next < 0) return;
      const Symbol& a = symbols[static_cast<size_t>(left)];
      const Symbol& b = symbols[static_cast<size_t>(a.next)];
      const auto merge = merges_.find(PairKey(a.id, b.id));
      if (merge != merges_.end()) queue.emplace(merge->second.rank, left, a.id, b.id);
    };
    for (size_t i = 0; i < word.size(); ++i) consider(static_cast<int64_t>(i));
    while (!queue.empty()) {
      const auto [rank, left, left_id, right_id] = queue.top();
      queue.pop();
      Symbol& a = symbols[static_cast<size_t>(left)];
      if (a.id != left_id || a.next < 0) continue;  // merged meanwhile
      Symbol& b = symbols[static_cast<size_t>(a.next)];
      if (b.id != right_id) continue;
      a.id = merges_.at(PairKey(left_id, right_id)).id;
      b.id = -1;
      a.next = b.next;
      if (b.next >= 0) symbols[static_cast<size_t>(b.next)].previous = left;
      consider(a.previous);
      consider(left);
    }
    std::vector<int32_t> ids;
    for (const Symbol& symbol : symbols)
      if (symbol.id >= 0) ids.push_back(symbol.id);
    return ids;
  }

  std::string content_;
  std::array<int32_t, 256> byte_id_;
  std::unordered_map<uint64_t, Merge> merges_;
  std::vector<Pattern> patterns_;
  std::vector<std::string> bytes_V_;
  std::vector<std::pair<std::string, int32_t>> special_tokens_;
  int32_t bos_id_, eos_id_, unk_id_, pad_id_;
  bool begins_with_bos_;
};

void CheckLists(const ByteBpeVocabulary& vocabulary, const std::string& where) {
  const size_t size = vocabulary.piece_V.size();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, size > 0 && vocabulary.is_special_V.size() == size, where,
                 ": the vocabulary has ", size, " pieces and ", vocabulary.is_special_V.size(),
                 " types");
  for (const int32_t id :
       {vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id})
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id >= -1 && id < static_cast<int64_t>(size), where,
                   ": special token id ", id, " is outside the vocabulary of ", size);
}

}  // namespace

std::unique_ptr<Tokenizer> MakeByteBpeTokenizer(const ByteBpeVocabulary& vocabulary,
                                                const std::string& where) {
  CheckLists(vocabulary, where);
  return std::make_unique<ByteBpeTokenizer>(vocabulary, ByteBpeToJson(vocabulary), where);
}

std::unique_ptr<Tokenizer> OpenTokenizerJson(const std::filesystem::path& file) {
  const ByteBpeVocabulary vocabulary = ReadByteBpeJson(file);
  CheckLists(vocabulary, file.string());
  return std::make_unique<ByteBpeTokenizer>(vocabulary, ReadFile(file), file.string());
}

}  // namespace lwm::data
