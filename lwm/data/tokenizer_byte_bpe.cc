#include "lwm/data/tokenizer_byte_bpe.h"

#include <array>
#include <queue>
#include <string_view>
#include <tuple>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/pattern_pcre2.h"
#include "lwm/data/utf8.h"
#include "lwm/data/vocabulary.h"

namespace lwm::data {
namespace {

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

class ByteBpe final : public Vocabulary {
 public:
  ByteBpe(const ByteBpeVocabulary& vocabulary, std::string content, const std::string& where)
      : content_(std::move(content)),
        pieces_V_(vocabulary.piece_V),
        ids_{vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id},
        add_bos_(vocabulary.add_bos),
        add_eos_(vocabulary.add_eos) {
    const std::array<std::string, 256> letters = MakeLetters();
    AddTokens(vocabulary);
    for (size_t id = 0; id < pieces_V_.size(); ++id)
      if (!IsAdded(id)) id_of_[pieces_V_[id]] = static_cast<int32_t>(id);
    for (const AddedToken& token : added_) id_of_.emplace(token.content, token.id);
    for (size_t byte = 0; byte < 256; ++byte)
      byte_id_[byte] = id_of_.contains(letters[byte]) ? id_of_.at(letters[byte]) : ids_.unk;
    AddMerges(vocabulary, where);
    for (const std::string& pattern : vocabulary.patterns) patterns_.emplace_back(pattern, where);
    SetBytes(letters);
    if (vocabulary.ignore_merges)
      for (size_t id = 0; id < bytes_V_.size(); ++id)
        if (!IsAdded(id)) whole_word_[bytes_V_[id]] = static_cast<int32_t>(id);
  }

  void Encode(std::string_view text, bool /*is_first*/, std::vector<int32_t>& ids) const override {
    const std::string valid = ReplaceInvalidUtf8(text);
    std::vector<std::string_view> words;
    if (!valid.empty()) words.push_back(valid);
    for (const Pattern& pattern : patterns_) {
      std::vector<std::string_view> parts;
      for (const std::string_view word : words) pattern.Cut(word, parts);
      words = std::move(parts);
    }
    std::unordered_map<std::string_view, std::vector<int32_t>> known;
    for (const std::string_view word : words) {
      auto& word_ids = known[word];
      if (word_ids.empty()) word_ids = EncodeWord(word);
      ids.insert(ids.end(), word_ids.begin(), word_ids.end());
    }
  }

  std::string PieceBytes(int32_t id) const override { return bytes_V_[static_cast<size_t>(id)]; }
  bool drops_space_at_start(int32_t) const override { return false; }
  int32_t size() const override { return static_cast<int32_t>(bytes_V_.size()); }
  int32_t Find(std::string_view spelling) const override {
    const auto found = id_of_.find(std::string(spelling));
    return found == id_of_.end() ? -1 : found->second;
  }
  std::string Spelling(int32_t id) const override { return pieces_V_[static_cast<size_t>(id)]; }
  SpecialIds special_ids() const override { return ids_; }
  bool begins_with_bos() const override { return add_bos_; }
  bool ends_with_eos() const override { return add_eos_; }
  const std::vector<AddedToken>& added() const override { return added_; }
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

  bool IsAdded(size_t id) const { return is_added_V_[id]; }

  // Special pieces are added tokens, whether listed as such or not.
  void AddTokens(const ByteBpeVocabulary& vocabulary) {
    is_added_V_.assign(pieces_V_.size(), false);
    added_ = vocabulary.added;
    for (const AddedToken& token : added_) is_added_V_.at(static_cast<size_t>(token.id)) = true;
    for (size_t id = 0; id < pieces_V_.size(); ++id) {
      if (!vocabulary.is_special_V[id] || is_added_V_[id]) continue;
      added_.push_back({.id = static_cast<int32_t>(id), .content = pieces_V_[id], .special = true});
      is_added_V_[id] = true;
    }
  }

  void AddMerges(const ByteBpeVocabulary& vocabulary, const std::string& where) {
    const auto find = [&](const std::string& piece) {
      const auto found = id_of_.find(piece);
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, found != id_of_.end(), where,
                     ": the vocabulary lacks \"", piece, "\"");
      return found->second;
    };
    for (size_t rank = 0; rank < vocabulary.merges.size(); ++rank) {
      const auto& [left, right] = vocabulary.merges[rank];
      merges_.emplace(PairKey(find(left), find(right)),
                      Merge{static_cast<int32_t>(rank), find(left + right)});
    }
  }

  void SetBytes(const std::array<std::string, 256>& letters) {
    std::unordered_map<std::string_view, char> byte_of;
    for (size_t byte = 0; byte < 256; ++byte)
      byte_of.emplace(letters[byte], static_cast<char>(byte));
    for (size_t id = 0; id < pieces_V_.size(); ++id) {
      std::string_view piece = pieces_V_[id];
      std::string bytes;
      while (!piece.empty() && !IsAdded(id)) {
        const size_t length = std::max<size_t>(1, Utf8CharacterLength(piece));
        const auto byte = byte_of.find(piece.substr(0, length));
        if (byte == byte_of.end())
          bytes += piece.substr(0, length);
        else
          bytes += byte->second;
        piece.remove_prefix(length);
      }
      bytes_V_.push_back(std::move(bytes));
    }
  }

  std::vector<int32_t> EncodeWord(std::string_view word) const {
    if (!whole_word_.empty())
      if (const auto whole = whole_word_.find(std::string(word)); whole != whole_word_.end())
        return {whole->second};
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
  std::vector<std::string> pieces_V_, bytes_V_;
  std::vector<bool> is_added_V_;
  std::array<int32_t, 256> byte_id_;
  std::unordered_map<std::string, int32_t> id_of_;
  std::unordered_map<std::string, int32_t> whole_word_;  // with ignore_merges: bytes -> id
  std::unordered_map<uint64_t, Merge> merges_;
  std::vector<Pattern> patterns_;
  std::vector<AddedToken> added_;
  SpecialIds ids_;
  bool add_bos_, add_eos_;
};

void CheckLists(const ByteBpeVocabulary& vocabulary, const std::string& where) {
  const size_t size = vocabulary.piece_V.size();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, size > 0 && vocabulary.is_special_V.size() == size, where,
                 ": the vocabulary has ", size, " pieces and ", vocabulary.is_special_V.size(),
                 " types");
  for (const AddedToken& token : vocabulary.added)
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, token.id >= 0 && token.id < static_cast<int64_t>(size),
                   where, ": added token \"", token.content, "\" has the id ", token.id);
  for (const int32_t id :
       {vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id})
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id >= -1 && id < static_cast<int64_t>(size), where,
                   ": special token id ", id, " is outside the vocabulary of ", size);
}

}  // namespace

std::unique_ptr<Tokenizer> MakeByteBpeTokenizer(const ByteBpeVocabulary& vocabulary,
                                                const std::string& where) {
  return MakeByteBpeTokenizer(vocabulary, {}, where);
}

std::unique_ptr<Tokenizer> MakeByteBpeTokenizer(const ByteBpeVocabulary& vocabulary,
                                                TokenizerSettings settings,
                                                const std::string& where) {
  CheckLists(vocabulary, where);
  return MakeTokenizer(std::make_unique<ByteBpe>(vocabulary, ByteBpeToJson(vocabulary), where),
                       std::move(settings), where);
}

std::unique_ptr<Tokenizer> OpenTokenizerJson(const std::filesystem::path& file,
                                             TokenizerSettings settings) {
  const ByteBpeVocabulary vocabulary = ReadByteBpeJson(file, settings);
  CheckLists(vocabulary, file.string());
  return MakeTokenizer(std::make_unique<ByteBpe>(vocabulary, ReadFile(file), file.string()),
                       std::move(settings), file.string());
}

}  // namespace lwm::data
