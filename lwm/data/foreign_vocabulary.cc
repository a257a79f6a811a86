#include "lwm/data/foreign_vocabulary.h"

#include <string>
#include <unordered_map>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/io/byte_reader.h"

namespace lwm::data {
namespace {

using Type = PieceVocabulary::Type;

constexpr const char* kSpaceMark = "\xE2\x96\x81";  // U+2581
constexpr size_t kFirstByte = 3, kBytePieces = 256;

std::string MarkSpaces(std::string_view piece) {
  std::string marked;
  for (const char c : piece) marked += c == ' ' ? std::string(kSpaceMark) : std::string(1, c);
  return marked;
}

int32_t TokenId(const io::GgufMetadata& metadata, const std::string& key, int32_t otherwise) {
  const auto id = metadata.Integer("tokenizer.ggml." + key);
  return id && *id >= 0 && *id <= INT32_MAX ? static_cast<int32_t>(*id) : otherwise;
}

Type PieceType(double number, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, number >= 1 && number <= 6, where,
                 ": tokenizer.ggml.token_type holds ", number);
  return static_cast<Type>(static_cast<int>(number));
}

// Of pieces that are spelled alike one keeps its name: one that is no plain text, else the last, as
// llama.cpp has it. The others, and empty ones, get names of their own that no text is encoded to,
// and keep the bytes that they add to a text.
void NameApart(PieceVocabulary& vocabulary) {
  std::unordered_map<std::string, size_t> keeper;
  const auto is_plain = [&](size_t id) { return vocabulary.type_V[id] == Type::kNormal; };
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    const auto [entry, is_new] = keeper.try_emplace(vocabulary.piece_V[id], id);
    if (!is_new && is_plain(entry->second)) entry->second = id;
  }
  for (size_t id = 0; id < vocabulary.piece_V.size(); ++id) {
    std::string& piece = vocabulary.piece_V[id];
    if (!piece.empty() && keeper.at(piece) == id) continue;
    vocabulary.bytes_of[static_cast<int32_t>(id)] =
        vocabulary.type_V[id] == Type::kControl ? "" : WithSpaces(piece);
    piece = Cat(piece.empty() ? "[EMPTY_" : "[DUPLICATE_", id, "]");
    while (keeper.contains(piece)) piece += "]";
    if (is_plain(id)) vocabulary.type_V[id] = Type::kUnused;
  }
}

// Pieces 0, 1, 2 and the single bytes have fixed places and names.
void NameFixedPieces(PieceVocabulary& vocabulary) {
  const char* names[] = {"<unk>", "<s>", "</s>"};
  for (size_t i = 0; i < vocabulary.piece_V.size() && i < kFirstByte + kBytePieces; ++i) {
    if (i < kFirstByte) {
      vocabulary.piece_V[i] = names[i];
      vocabulary.type_V[i] = i == 0 ? Type::kUnknown : Type::kControl;
    } else {
      char name[8];
      std::snprintf(name, sizeof(name), "<0x%02X>", static_cast<unsigned>(i - kFirstByte));
      vocabulary.piece_V[i] = name;
      vocabulary.type_V[i] = Type::kByte;
    }
  }
}

}  // namespace

std::optional<PieceVocabulary> VocabularyOfGguf(const io::GgufMetadata& metadata) {
  if (metadata.Text("tokenizer.ggml.model") != "llama") return {};
  PieceVocabulary vocabulary;
  vocabulary.piece_V = metadata.Texts("tokenizer.ggml.tokens");
  for (const double score : metadata.Numbers("tokenizer.ggml.scores"))
    vocabulary.score_V.push_back(static_cast<float>(score));
  for (const double type : metadata.Numbers("tokenizer.ggml.token_type"))
    vocabulary.type_V.push_back(PieceType(type, metadata.where));
  const size_t size = vocabulary.piece_V.size();
  if (vocabulary.type_V.empty()) vocabulary.type_V.assign(size, Type::kNormal);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData,
                 size > 0 && vocabulary.score_V.size() == size && vocabulary.type_V.size() == size,
                 metadata.where, ": tokenizer.ggml has ", size, " tokens, ",
                 vocabulary.score_V.size(), " scores, ", vocabulary.type_V.size(), " types");
  vocabulary.add_space_prefix =
      metadata.Flag("tokenizer.ggml.add_space_prefix").value_or(vocabulary.add_space_prefix);
  vocabulary.bos_id = TokenId(metadata, "bos_token_id", vocabulary.bos_id);
  vocabulary.eos_id = TokenId(metadata, "eos_token_id", vocabulary.eos_id);
  vocabulary.unk_id = TokenId(metadata, "unknown_token_id", vocabulary.unk_id);
  vocabulary.pad_id = TokenId(metadata, "padding_token_id", vocabulary.pad_id);
  NameApart(vocabulary);
  return vocabulary;
}

PieceVocabulary ReadLlama2cVocabulary(const std::filesystem::path& path, int64_t vocab_size) {
  const MappedFile file(path);
  io::ByteReader in(file.bytes(), path.string());
  in.Number<int32_t>();  // the longest piece
  PieceVocabulary vocabulary;
  for (int64_t i = 0; i < vocab_size; ++i) {
    vocabulary.score_V.push_back(in.Number<float>());
    const auto bytes = in.Number<int32_t>();
    in.Require(bytes >= 0, "a piece of negative length");
    vocabulary.piece_V.push_back(MarkSpaces(in.Text(static_cast<uint64_t>(bytes))));
    vocabulary.type_V.push_back(Type::kNormal);
  }
  in.Require(in.at_end(), Cat("holds more than the model's ", vocab_size, " pieces"));
  NameFixedPieces(vocabulary);
  return vocabulary;
}

}  // namespace lwm::data
