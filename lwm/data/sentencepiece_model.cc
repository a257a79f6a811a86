#include "lwm/data/sentencepiece_model.h"

#include <algorithm>
#include <bit>
#include <cstring>
#include <optional>

#include "lwm/base/error.h"

namespace lwm::data {
namespace {

// Field numbers of sentencepiece_model.proto.
constexpr uint32_t kModelPieces = 1, kModelTrainer = 2, kModelNormalizer = 3;
constexpr uint32_t kPieceText = 1, kPieceScore = 2, kPieceType = 3;
constexpr uint32_t kTrainerModelType = 3, kTrainerVocabSize = 4, kTrainerSpaceAsSuffix = 24;
constexpr uint32_t kTrainerByteFallback = 35, kTrainerUnkId = 40, kTrainerBosId = 41;
constexpr uint32_t kTrainerEosId = 42, kTrainerPadId = 43, kTrainerUnkSurface = 44;
constexpr uint32_t kTrainerUnkPiece = 45, kTrainerBosPiece = 46, kTrainerEosPiece = 47;
constexpr uint32_t kTrainerPadPiece = 48;
constexpr uint32_t kNormalizerName = 1, kNormalizerCharsMap = 2, kNormalizerPrefix = 3;
constexpr uint32_t kNormalizerRemoveSpaces = 4, kNormalizerEscape = 5;

constexpr int64_t kBpe = 2;  // of kTrainerModelType

enum Wire : uint32_t { kVarint = 0, kFixed64 = 1, kBytes = 2, kFixed32 = 5 };

struct Field {
  uint32_t number = 0;
  uint32_t wire = 0;
  uint64_t value = 0;      // kVarint, kFixed32, kFixed64
  std::string_view bytes;  // kBytes
};

// Reads the fields of one message, in order; nothing at its end or when it is damaged.
class MessageReader {
 public:
  explicit MessageReader(std::string_view bytes) : rest_(bytes) {}
  bool damaged() const { return damaged_; }

  std::optional<Field> Next() {
    if (rest_.empty() || damaged_) return std::nullopt;
    Field field;
    const uint64_t tag = Varint();
    field.number = static_cast<uint32_t>(tag >> 3);
    field.wire = tag & 7;
    if (field.wire == kVarint) {
      field.value = Varint();
    } else if (field.wire == kFixed32 || field.wire == kFixed64) {
      const std::string_view raw = Take(field.wire == kFixed32 ? 4 : 8);
      if (!raw.empty()) std::memcpy(&field.value, raw.data(), raw.size());
    } else if (field.wire == kBytes) {
      field.bytes = Take(Varint());
    } else {
      damaged_ = true;
    }
    if (field.number == 0 || tag >> 3 > 0x1fffffff) damaged_ = true;
    return damaged_ ? std::nullopt : std::optional(field);
  }

 private:
  uint64_t Varint() {
    uint64_t value = 0;
    for (int shift = 0; shift < 64 && !rest_.empty(); shift += 7) {
      const auto byte = static_cast<uint8_t>(rest_[0]);
      rest_.remove_prefix(1);
      value |= static_cast<uint64_t>(byte & 0x7f) << shift;
      if (byte < 0x80) return value;
    }
    damaged_ = true;
    return 0;
  }

  std::string_view Take(uint64_t size) {
    if (size > rest_.size()) damaged_ = true;
    const std::string_view taken = damaged_ ? std::string_view() : rest_.substr(0, size);
    rest_.remove_prefix(taken.size());
    return taken;
  }

  std::string_view rest_;
  bool damaged_ = false;
};

// The names that mark the special tokens in a trainer spec, with the format's defaults.
struct SpecialPieces {
  std::string unk = "<unk>", bos = "<s>", eos = "</s>", pad = "<pad>";
};

bool ReadPiece(std::string_view bytes, PieceVocabulary& vocabulary) {
  std::string piece;
  float score = 0;
  uint64_t type = 1;
  MessageReader reader(bytes);
  while (const auto field = reader.Next()) {
    if (field->number == kPieceText && field->wire == kBytes) piece = field->bytes;
    if (field->number == kPieceScore && field->wire == kFixed32)
      score = std::bit_cast<float>(static_cast<uint32_t>(field->value));
    if (field->number == kPieceType && field->wire == kVarint) type = field->value;
  }
  if (reader.damaged() || piece.empty() || type < 1 || type > 6) return false;
  vocabulary.piece_V.push_back(std::move(piece));
  vocabulary.score_V.push_back(score);
  vocabulary.type_V.push_back(static_cast<PieceVocabulary::Type>(type));
  return true;
}

bool ReadTrainer(std::string_view bytes, SentencePieceModel& model, SpecialPieces& special) {
  MessageReader reader(bytes);
  while (const auto field = reader.Next()) {
    if (field->number == kTrainerSpaceAsSuffix && field->wire == kVarint)
      model.spaces_at_end = field->value != 0;
    if (field->number == kTrainerModelType && field->wire == kVarint)
      model.is_bpe = field->value == kBpe;
    if (field->number == kTrainerByteFallback && field->wire == kVarint)
      model.byte_fallback = field->value != 0;
    if (field->wire != kBytes) continue;
    if (field->number == kTrainerUnkSurface) model.unknown_surface = field->bytes;
    if (field->number == kTrainerUnkPiece) special.unk = field->bytes;
    if (field->number == kTrainerBosPiece) special.bos = field->bytes;
    if (field->number == kTrainerEosPiece) special.eos = field->bytes;
    if (field->number == kTrainerPadPiece) special.pad = field->bytes;
  }
  return !reader.damaged();
}

bool ReadNormalizer(std::string_view bytes, SentencePieceModel& model) {
  MessageReader reader(bytes);
  model.removes_extra_spaces = true;  // the format's default
  while (const auto field = reader.Next()) {
    if (field->number == kNormalizerCharsMap && field->wire == kBytes)
      model.normalises = !field->bytes.empty();
    if (field->wire != kVarint) continue;
    if (field->number == kNormalizerPrefix) model.vocabulary.add_space_prefix = field->value != 0;
    if (field->number == kNormalizerRemoveSpaces) model.removes_extra_spaces = field->value != 0;
    if (field->number == kNormalizerEscape && field->value == 0) model.normalises = true;
  }
  return !reader.damaged();
}

void FindSpecialIds(const SpecialPieces& special, PieceVocabulary& vocabulary) {
  vocabulary.unk_id = vocabulary.bos_id = vocabulary.eos_id = vocabulary.pad_id = -1;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    const auto number = static_cast<int32_t>(id);
    const std::string& piece = vocabulary.piece_V[id];
    if (vocabulary.type_V[id] == PieceVocabulary::Type::kUnknown) vocabulary.unk_id = number;
    if (vocabulary.type_V[id] != PieceVocabulary::Type::kControl) continue;
    if (piece == special.bos) vocabulary.bos_id = number;
    if (piece == special.eos) vocabulary.eos_id = number;
    if (piece == special.pad) vocabulary.pad_id = number;
  }
}

std::optional<SentencePieceModel> TryParse(std::string_view bytes) {
  SentencePieceModel model;
  SpecialPieces special;
  MessageReader reader(bytes);
  bool good = true;
  while (const auto field = reader.Next()) {
    if (field->wire != kBytes) continue;
    if (field->number == kModelPieces) good = good && ReadPiece(field->bytes, model.vocabulary);
    if (field->number == kModelTrainer) good = good && ReadTrainer(field->bytes, model, special);
    if (field->number == kModelNormalizer) good = good && ReadNormalizer(field->bytes, model);
    if (!good) return std::nullopt;
  }
  if (reader.damaged() || model.vocabulary.piece_V.empty()) return std::nullopt;
  FindSpecialIds(special, model.vocabulary);
  return model;
}

void AppendVarint(std::string& out, uint64_t value) {
  for (; value >= 0x80; value >>= 7) out.push_back(static_cast<char>(value | 0x80));
  out.push_back(static_cast<char>(value));
}

void AppendNumber(std::string& out, uint32_t number, int64_t value) {
  AppendVarint(out, number << 3 | kVarint);
  AppendVarint(out, static_cast<uint64_t>(value));
}

void AppendBytes(std::string& out, uint32_t number, std::string_view bytes) {
  AppendVarint(out, number << 3 | kBytes);
  AppendVarint(out, bytes.size());
  out.append(bytes);
}

void AppendFloat(std::string& out, uint32_t number, float value) {
  AppendVarint(out, number << 3 | kFixed32);
  char raw[4];
  std::memcpy(raw, &value, 4);
  out.append(raw, 4);
}

std::string TrainerSpec(const PieceVocabulary& vocabulary) {
  std::string out;
  AppendNumber(out, kTrainerModelType, kBpe);
  AppendNumber(out, kTrainerVocabSize, static_cast<int64_t>(vocabulary.piece_V.size()));
  // With some byte pieces SentencePiece wants all 256, without any it falls back to unk.
  AppendNumber(out, kTrainerByteFallback,
               std::find(vocabulary.type_V.begin(), vocabulary.type_V.end(),
                         PieceVocabulary::Type::kByte) != vocabulary.type_V.end());
  const auto add_special = [&](uint32_t id_field, uint32_t piece_field, int32_t id) {
    AppendNumber(out, id_field, id);
    if (id >= 0) AppendBytes(out, piece_field, vocabulary.piece_V[static_cast<size_t>(id)]);
  };
  add_special(kTrainerUnkId, kTrainerUnkPiece, vocabulary.unk_id);
  add_special(kTrainerBosId, kTrainerBosPiece, vocabulary.bos_id);
  add_special(kTrainerEosId, kTrainerEosPiece, vocabulary.eos_id);
  add_special(kTrainerPadId, kTrainerPadPiece, vocabulary.pad_id);
  return out;
}

std::string NormalizerSpec(const PieceVocabulary& vocabulary) {
  std::string out;
  AppendBytes(out, kNormalizerName, "identity");
  AppendBytes(out, kNormalizerCharsMap, "");
  AppendNumber(out, kNormalizerPrefix, vocabulary.add_space_prefix);
  AppendNumber(out, kNormalizerRemoveSpaces, 0);
  AppendNumber(out, kNormalizerEscape, 1);
  return out;
}

}  // namespace

bool IsSentencePieceModel(std::string_view bytes) { return TryParse(bytes).has_value(); }

SentencePieceModel ParseSentencePieceModel(std::string_view bytes, const std::string& where) {
  auto model = TryParse(bytes);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, model.has_value(), where,
                 ": not a SentencePiece model, or a damaged one");
  return *std::move(model);
}

std::string WithSpaces(std::string_view piece) {
  constexpr std::string_view kSpace = "\xE2\x96\x81";
  std::string text;
  while (!piece.empty()) {
    const bool space = piece.starts_with(kSpace);
    text.push_back(space ? ' ' : piece[0]);
    piece.remove_prefix(space ? kSpace.size() : 1);
  }
  return text;
}

std::string SerializeSentencePieceModel(const PieceVocabulary& vocabulary) {
  std::string out;
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    std::string piece;
    AppendBytes(piece, kPieceText, vocabulary.piece_V[id]);
    AppendFloat(piece, kPieceScore, vocabulary.score_V[id]);
    AppendNumber(piece, kPieceType, static_cast<int64_t>(vocabulary.type_V[id]));
    AppendBytes(out, kModelPieces, piece);
  }
  AppendBytes(out, kModelTrainer, TrainerSpec(vocabulary));
  AppendBytes(out, kModelNormalizer, NormalizerSpec(vocabulary));
  return out;
}

}  // namespace lwm::data
