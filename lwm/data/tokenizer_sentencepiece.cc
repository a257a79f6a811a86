#include "lwm/data/tokenizer_sentencepiece.h"

#include <sentencepiece_processor.h>
#include <sentencepiece_trainer.h>

#include <unordered_map>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/training_text.h"

namespace lwm::data {
namespace {

using Type = PieceVocabulary::Type;
constexpr std::string_view kSpace = "\xE2\x96\x81";  // U+2581, a space inside a piece

// True when no piece has a space after another character: then no merge crosses the beginning of a
// run of spaces, and a text may be encoded word by word.
bool WordsAreIndependent(const SentencePieceModel& model) {
  const PieceVocabulary& vocabulary = model.vocabulary;
  int byte_pieces = 0;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    byte_pieces += vocabulary.type_V[id] == Type::kByte;
    if (vocabulary.type_V[id] == Type::kControl) continue;
    std::string_view piece = vocabulary.piece_V[id];
    while (piece.starts_with(kSpace)) piece.remove_prefix(kSpace.size());
    if (piece.find(kSpace) != std::string_view::npos) return false;
  }
  return byte_pieces == 256 && vocabulary.add_space_prefix && !model.normalises &&
         !model.removes_extra_spaces && !model.spaces_at_end;
}

std::string PieceBytes(const SentencePieceModel& model, size_t id) {
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
  std::string bytes;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpace);
    bytes.push_back(space ? ' ' : piece[0]);
    piece.remove_prefix(space ? kSpace.size() : 1);
  }
  return bytes;
}

class SentencePieceTokenizer : public Tokenizer {
 public:
  SentencePieceTokenizer(std::string content, const std::string& where)
      : content_(std::move(content)), model_(ParseSentencePieceModel(content_, where)) {
    CheckBytePieces(where);
    const auto status = processor_.LoadFromSerializedProto(content_);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, status.ok(), where,
                   ": damaged SentencePiece model: ", status.error_message());
    words_are_independent_ = WordsAreIndependent(model_);
    for (size_t id = 0; id < model_.vocabulary.piece_V.size(); ++id) AddPiece(id);
  }

  std::vector<int32_t> Encode(std::string_view text) const override {
    std::vector<int32_t> ids;
    if (words_are_independent_ && text.find(kSpace) == std::string_view::npos)
      EncodeByWords(text, ids);
    else
      AppendEncoded(text, ids);
    return ids;
  }

  std::string TokenBytes(int32_t id) const override { return bytes_V_[Checked(id)]; }

  bool drops_space_at_start(int32_t id) const override {
    const Type type = model_.vocabulary.type_V[Checked(id)];
    return (model_.vocabulary.add_space_prefix || model_.removes_extra_spaces) &&
           type != Type::kByte && type != Type::kUnknown;
  }

  int32_t vocab_size() const override { return static_cast<int32_t>(bytes_V_.size()); }
  int32_t bos_id() const override { return model_.vocabulary.bos_id; }
  int32_t eos_id() const override { return model_.vocabulary.eos_id; }
  int32_t unk_id() const override { return model_.vocabulary.unk_id; }
  int32_t pad_id() const override { return model_.vocabulary.pad_id; }
  bool begins_with_bos() const override { return bos_id() >= 0; }
  const std::vector<std::pair<std::string, int32_t>>& special_tokens() const override {
    return special_tokens_;
  }
  std::string file_name() const override { return "tokenizer.model"; }
  const std::string& file_content() const override { return content_; }

 private:
  void AddPiece(size_t id) {
    bytes_V_.push_back(PieceBytes(model_, id));
    const std::string& piece = model_.vocabulary.piece_V[id];
    if (model_.vocabulary.type_V[id] == Type::kControl && !piece.empty())
      special_tokens_.emplace_back(piece, static_cast<int32_t>(id));
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

  size_t Checked(int32_t id) const {
    LWM_REQUIRE(id >= 0 && id < vocab_size(), "token id ", id,
                " is outside the tokenizer's vocabulary of ", vocab_size());
    return static_cast<size_t>(id);
  }

  void AppendEncoded(std::string_view text, std::vector<int32_t>& ids) const {
    std::vector<int> encoded;
    const auto status = processor_.Encode(text, &encoded);
    LWM_CHECK(status.ok(), "SentencePiece: ", status.error_message());
    ids.insert(ids.end(), encoded.begin(), encoded.end());
  }

  // Word by word, each distinct word once. A word keeps the spaces before it; the library puts one
  // there itself, so all words but the first are passed without their first space.
  void EncodeByWords(std::string_view text, std::vector<int32_t>& ids) const {
    std::unordered_map<std::string_view, std::pair<size_t, size_t>> known;  // word -> range of ids
    bool first = true;
    while (!text.empty()) {
      const size_t end = WordEnd(text);
      const std::string_view word = text.substr(0, end);
      const auto [entry, is_new] = known.try_emplace(word, ids.size(), size_t{0});
      if (is_new) {
        entry->second.first = ids.size();
        AppendEncoded(first ? word : word.substr(1), ids);
        entry->second.second = ids.size();
      } else {
        for (size_t i = entry->second.first; i < entry->second.second; ++i) ids.push_back(ids[i]);
      }
      if (first) known.clear();  // the first word may lack the space that the others begin with
      first = false;
      text.remove_prefix(end);
    }
  }

  // Where the next word begins: at a space after something else, unless it is the text's last byte
  // (alone it would be an empty text to the library).
  static size_t WordEnd(std::string_view text) {
    size_t at = text.find_first_not_of(' ');
    if (at == std::string_view::npos) return text.size();
    at = text.find(' ', at);
    return at == std::string_view::npos || at + 1 == text.size() ? text.size() : at;
  }

  std::string content_;
  SentencePieceModel model_;
  sentencepiece::SentencePieceProcessor processor_;
  std::vector<std::pair<std::string, int32_t>> special_tokens_;
  std::vector<std::string> bytes_V_;
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

std::unique_ptr<Tokenizer> OpenSentencePiece(std::string content, const std::string& where) {
  return std::make_unique<SentencePieceTokenizer>(std::move(content), where);
}

std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
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
  return OpenSentencePiece(SerializeSentencePieceModel(vocabulary), where);
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
