#include "lwm/data/tokenizer_sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <unordered_map>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/training_text.h"
#include "lwm/data/vocabulary.h"

namespace lwm::data {
namespace {

using Type = PieceVocabulary::Type;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, a space inside a piece

// True when no piece has a space after another character: then no merge crosses the beginning of a
// run of spaces, and a text may be encoded word by word.
bool WordsAreIndependent(const PieceVocabulary& vocabulary) {
  int byte_pieces = 0;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    byte_pieces += vocabulary.type_V[id] == Type::kByte;
    if (vocabulary.type_V[id] == Type::kControl) continue;
    std::string_view piece = vocabulary.piece_V[id];
    while (piece.starts_with(kSpace)) piece.remove_prefix(kSpace.size());
    if (piece.find(kSpace) != std::string_view::npos) return false;
  }
  return byte_pieces == 256;
}

std::string PieceBytesOf(const SentencePieceModel& model, size_t id) {
  std::string_view piece = model.vocabulary.piece_V[id];
  switch (model.vocabulary.type_V[id]) {
    case Type::kControl:
      return "";
    case Type::kUnknown:
      return model.unknown_surface;
    case Type::kByte: {
      const std::string digits(piece.size() == 6 ? piece.substr(3, 2) : "0");
      return std::string(1, static_cast<char>(std::stoi(digits, nullptr, 16)));
    }
    case Type::kNormal:
    case Type::kUserDefined:
    case Type::kUnused:
      break;
  }
  return WithSpaces(piece);
}

class SentencePieceVocabulary final : public Vocabulary {
 public:
  SentencePieceVocabulary(std::string content, const std::map<int32_t, std::string>& bytes_of,
                          const TokenizerSettings& settings, const std::string& where)
      : content_(std::move(content)), model_(ParseSentencePieceModel(content_, where)) {
    CheckBytePieces(where);
    is_plain_ = !model_.normalises && !model_.removes_extra_spaces && !model_.spaces_at_end;
    adds_space_ = settings.add_prefix_space.value_or(model_.vocabulary.add_space_prefix);
    only_first_ = settings.legacy == false;
    Load(content_ + PrefixSetting(false), where, bare_);
    if (!is_plain_) Load(content_ + PrefixSetting(adds_space_), where, whole_);
    words_are_independent_ = is_plain_ && WordsAreIndependent(model_.vocabulary);
    for (size_t id = 0; id < model_.vocabulary.piece_V.size(); ++id) AddPiece(id);
    for (const auto& [id, bytes] : bytes_of) bytes_V_[static_cast<size_t>(id)] = bytes;
  }

  void Encode(std::string_view text, bool is_first, std::vector<int32_t>& ids) const override {
    if (text.empty()) return;
    const bool with_space = adds_space_ && (is_first || !only_first_);
    if (!is_plain_) return AppendEncoded(with_space ? whole_ : bare_, text, ids);
    const bool has_one = text.starts_with(' ') || text.starts_with(kSpace);
    std::string with_prefix;
    if (with_space && !(only_first_ && has_one)) {
      with_prefix = Cat(' ', text);
      text = with_prefix;
    }
    if (words_are_independent_ && text.find(kSpace) == std::string_view::npos)
      EncodeByWords(text, ids);
    else
      AppendEncoded(bare_, text, ids);
  }

  std::string PieceBytes(int32_t id) const override { return bytes_V_[static_cast<size_t>(id)]; }

  bool drops_space_at_start(int32_t id) const override {
    const Type type = model_.vocabulary.type_V[static_cast<size_t>(id)];
    return (adds_space_ || model_.removes_extra_spaces) && type != Type::kByte &&
           type != Type::kUnknown;
  }

  int32_t size() const override { return static_cast<int32_t>(bytes_V_.size()); }
  int32_t Find(std::string_view spelling) const override {
    const auto found = id_of_.find(std::string(spelling));
    return found == id_of_.end() ? -1 : found->second;
  }
  std::string Spelling(int32_t id) const override {
    return model_.vocabulary.piece_V[static_cast<size_t>(id)];
  }
  SpecialIds special_ids() const override {
    const PieceVocabulary& pieces = model_.vocabulary;
    return {pieces.bos_id, pieces.eos_id, pieces.unk_id, pieces.pad_id};
  }
  bool begins_with_bos() const override { return true; }
  bool ends_with_eos() const override { return false; }
  std::optional<bool> adds_space() const override { return adds_space_; }
  const std::vector<AddedToken>& added() const override { return added_; }
  std::string file_name() const override { return "tokenizer.model"; }
  const std::string& file_content() const override { return content_; }

 private:
  // The end of a model that overrides whether the library puts a space before a text: a repeated
  // message of a protocol buffer is merged with the one before it.
  static std::string PrefixSetting(bool adds_space) {
    return {0x1A, 0x02, 0x18, static_cast<char>(adds_space)};
  }

  static void Load(const std::string& content, const std::string& where,
                   sentencepiece::SentencePieceProcessor& processor) {
    const auto status = processor.LoadFromSerializedProto(content);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, status.ok(), where,
                   ": damaged SentencePiece model: ", status.error_message());
  }

  void AddPiece(size_t id) {
    bytes_V_.push_back(PieceBytesOf(model_, id));
    const std::string& piece = model_.vocabulary.piece_V[id];
    id_of_.emplace(piece, static_cast<int32_t>(id));
    if (model_.vocabulary.type_V[id] == Type::kControl && !piece.empty())
      added_.push_back({.id = static_cast<int32_t>(id), .content = piece, .special = true});
  }

  void CheckBytePieces(const std::string& where) const {
    for (size_t id = 0; id < model_.vocabulary.piece_V.size(); ++id) {
      const std::string& piece = model_.vocabulary.piece_V[id];
      const bool good = piece.size() == 6 && piece.starts_with("<0x") && piece[5] == '>' &&
                        piece.find_first_not_of("0123456789ABCDEF", 3) == 5;
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, model_.vocabulary.type_V[id] != Type::kByte || good,
                     where, ": byte piece ", id, " is named \"", piece, "\", want \"<0x00>\"");
    }
  }

  static void AppendEncoded(const sentencepiece::SentencePieceProcessor& processor,
                            std::string_view text, std::vector<int32_t>& ids) {
    std::vector<int> encoded;
    const auto status = processor.Encode(text, &encoded);
    LWM_CHECK(status.ok(), "SentencePiece: ", status.error_message());
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  }

  // Word by word, each distinct word once. A word keeps the spaces before it.
  void EncodeByWords(std::string_view text, std::vector<int32_t>& ids) const {
    std::unordered_map<std::string_view, std::pair<size_t, size_t>> known;  // word -> range of ids
    while (!text.empty()) {
      const size_t end = WordEnd(text);
      const std::string_view word = text.substr(0, end);
      const auto [entry, is_new] = known.try_emplace(word, ids.size(), size_t{0});
      if (is_new) {
        AppendEncoded(bare_, word, ids);
        entry->second.second = ids.size();
      } else {
        for (size_t i = entry->second.first; i < entry->second.second; ++i) ids.push_back(ids[i]);
      }
      text.remove_prefix(end);
    }
  }

  // Where the next word begins: at a space after something else.
  static size_t WordEnd(std::string_view text) {
    size_t at = text.find_first_not_of(' ');
    if (at == std::string_view::npos) return text.size();
    at = text.find(' ', at);
    return at == std::string_view::npos ? text.size() : at;
  }

  std::string content_;
  SentencePieceModel model_;
  bool is_plain_ = false;  // the library changes nothing of a text but the space before it
  bool adds_space_ = true, only_first_ = false;
  sentencepiece::SentencePieceProcessor bare_;   // puts no space before a text
  sentencepiece::SentencePieceProcessor whole_;  // of a model that is not plain: as it says
  std::vector<AddedToken> added_;
  std::vector<std::string> bytes_V_;
  std::unordered_map<std::string, int32_t> id_of_;
  bool words_are_independent_ = false;
};

// Hands the training text to SentencePiece, line by line.
class LineIterator : public sentencepiece::SentenceIterator {
 public:
  explicit LineIterator(TrainingText& text) : text_(text) { Next(); }
  bool done() const override { return done_; }
  void Next() override { done_ = !text_.NextLine(line_); }
  const std::string& value() const override { return line_; }
  sentencepiece::util::Status status() const override { return {}; }

 private:
  TrainingText& text_;
  std::string line_;
  bool done_ = false;
};

// The number after `mark` in the library's message, or "".
std::string NumberAfter(const std::string& message, const std::string& mark) {
  const size_t at = message.find(mark);
  if (at == std::string::npos) return "";
  const size_t begin = at + mark.size();
  return message.substr(begin, message.find_first_not_of("0123456789", begin) - begin);
}

[[noreturn]] void ThrowTrainingError(const std::string& message, int32_t vocab_size) {
  const std::string largest = NumberAfter(message, "Please set it to a value <= ");
  LWM_REQUIRE(largest.empty(), "vocab_size ", vocab_size,
              " is too large for this text; the largest that fits is ", largest);
  const std::string smallest = NumberAfter(message, " vs ");
  LWM_REQUIRE(smallest.empty(), "vocab_size ", vocab_size, " is too small for the characters of ",
              "this text; the smallest that fits is ", smallest);
  throw Error(ErrorCode::kInvalidArgument, Cat("cannot train a tokenizer: ", message));
}

}  // namespace

std::unique_ptr<Tokenizer> OpenSentencePiece(std::string content, TokenizerSettings settings,
                                             const std::string& where) {
  auto vocabulary = std::make_unique<SentencePieceVocabulary>(
      std::move(content), std::map<int32_t, std::string>(), settings, where);
  return MakeTokenizer(std::move(vocabulary), std::move(settings), where);
}

std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
                                              const std::string& where) {
  return MakePieceTokenizer(vocabulary, {}, where);
}

std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
                                              TokenizerSettings settings,
                                              const std::string& where) {
  const size_t size = vocabulary.piece_V.size();
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 size > 0 && vocabulary.score_V.size() == size && vocabulary.type_V.size() == size,
                 where, ": the vocabulary has ", size, " pieces, ", vocabulary.score_V.size(),
                 " scores and ", vocabulary.type_V.size(), " types; want as many of each");
  const auto limit = static_cast<int64_t>(size);
  for (const int32_t id :
       {vocabulary.bos_id, vocabulary.eos_id, vocabulary.unk_id, vocabulary.pad_id})
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id >= -1 && id < limit, where, ": special token id ",
                   id, " is outside the vocabulary of ", size);
  auto pieces = std::make_unique<SentencePieceVocabulary>(SerializeSentencePieceModel(vocabulary),
                                                          vocabulary.bytes_of, settings, where);
  return MakeTokenizer(std::move(pieces), std::move(settings), where);
}

std::string TrainTokenizer(const TokenizerTraining& training) {
  LWM_REQUIRE(training.vocab_size > 259, "vocab_size ", training.vocab_size,
              " is too small; 256 byte pieces and 3 special ones already make 259");
  TrainingText text(training.inputs);
  LineIterator lines(text);
  std::string model;
  const auto status = sentencepiece::SentencePieceTrainer::Train(
      {{"model_type", "bpe"},
       {"vocab_size", std::to_string(training.vocab_size)},
       {"character_coverage", std::to_string(training.character_coverage)},
       {"num_threads", "1"},  // BPE training has one; the number would be written into the model
       {"byte_fallback", "true"},
       {"split_digits", "true"},
       {"allow_whitespace_only_pieces", "true"},
       {"normalization_rule_name", "identity"},
       {"remove_extra_whitespaces", "false"},
       {"max_sentence_length", std::to_string(TrainingText::kMaxLineBytes)},
       {"minloglevel", "3"}},
      &lines, &model);
  if (!status.ok()) ThrowTrainingError(status.error_message(), training.vocab_size);
  return model;
}

}  // namespace lwm::data
