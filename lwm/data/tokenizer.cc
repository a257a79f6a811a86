#include "lwm/data/tokenizer.h"

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/foreign_vocabulary.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/tokenizer_byte_bpe.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/data/utf8.h"
#include "lwm/io/checkpoint_place.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/gguf_split.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kFileNames[] = {"tokenizer.model", "tokenizer.json"};

fs::path FindTokenizerFile(const fs::path& path) {
  for (const fs::path& place : {path, io::FindCheckpoint(path)}) {
    if (!fs::is_directory(place)) return io::FirstGgufPart(place);
    for (const char* name : kFileNames)
      if (fs::exists(place / name)) return place / name;
  }
  throw Error(ErrorCode::kNotFound,
              Cat(path.string(),
                  " holds no tokenizer; want tokenizer.model or tokenizer.json in that folder"));
}

std::unique_ptr<Tokenizer> OpenGgufTokenizer(std::span<const std::byte> bytes,
                                             const std::string& where) {
  const io::GgufFile gguf = io::ParseGguf(bytes, where);
  if (gguf.metadata.Text("tokenizer.ggml.model") == "gpt2")
    return MakeByteBpeTokenizer(ByteBpeVocabularyOfGguf(gguf.metadata),
                                SettingsOfGguf(gguf.metadata), where);
  const auto vocabulary = VocabularyOfGguf(gguf.metadata);
  LWM_REQUIRE_AS(
      ErrorCode::kNotFound, vocabulary.has_value(), where,
      ": holds no tokenizer this program knows (want tokenizer.ggml.model llama or gpt2)");
  TokenizerSettings settings = SettingsOfGguf(gguf.metadata);
  settings.unk_token.clear();  // not named, it is shown as SentencePiece does
  return MakePieceTokenizer(*vocabulary, std::move(settings), where);
}

}  // namespace

const TokenizerSettings& Tokenizer::settings() const {
  static const TokenizerSettings kNone;
  return kNone;
}

std::string Tokenizer::Decode(std::span<const int32_t> ids) const {
  StreamDecoder decoder(*this);
  std::string text;
  for (const int32_t id : ids) text += decoder.Push(id);
  return text + decoder.Finish();
}

std::string StreamDecoder::Push(int32_t id) {
  std::string bytes = tokenizer_->TokenBytes(id);
  if (at_start_ && !bytes.empty()) {
    if (bytes[0] == ' ' && tokenizer_->drops_space_at_start(id)) bytes.erase(0, 1);
    at_start_ = false;
  }
  held_ += bytes;
  // Only the last three bytes can be the beginning of a character that goes on in the next token.
  size_t ready = held_.size();
  for (size_t tail = 1; tail <= 3 && tail <= held_.size(); ++tail)
    if (IsUtf8Beginning(std::string_view(held_).substr(held_.size() - tail)))
      ready = held_.size() - tail;
  std::string text = ReplaceInvalidUtf8(std::string_view(held_).substr(0, ready));
  held_.erase(0, ready);
  return text;
}

std::string StreamDecoder::Finish() {
  std::string text = ReplaceInvalidUtf8(held_);
  held_.clear();
  at_start_ = true;
  return text;
}

std::unique_ptr<Tokenizer> OpenTokenizer(const fs::path& path) {
  const fs::path file = FindTokenizerFile(path);
  const std::string where = file.string();
  const MappedFile mapped(file);
  const std::string_view bytes(reinterpret_cast<const char*>(mapped.bytes().data()),
                               mapped.bytes().size());
  if (bytes.starts_with("GGUF")) return OpenGgufTokenizer(mapped.bytes(), where);
  if (IsSentencePieceModel(bytes))
    return OpenSentencePiece(std::string(bytes), ReadTokenizerSettings(file), where);
  if (bytes.starts_with("{")) return OpenTokenizerJson(file, ReadTokenizerSettings(file));
  throw Error(ErrorCode::kCorruptData,
              Cat(where, ": not a tokenizer this program knows, or a damaged one; want a ",
                  "SentencePiece model, a tokenizer.json or a GGUF file"));
}

}  // namespace lwm::data
