#include "convert_tokenizer.h"

#include <cstdio>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/foreign_vocabulary.h"
#include "lwm/data/sentencepiece_model.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

model::GgufVocabulary PiecesForGguf(const data::Tokenizer& tokenizer) {
  const auto pieces =
      data::ParseSentencePieceModel(tokenizer.file_content(), tokenizer.file_name()).vocabulary;
  model::GgufVocabulary result;
  result.tokens = pieces.piece_V;
  result.scores = pieces.score_V;
  for (const auto type : pieces.type_V) result.types.push_back(static_cast<int32_t>(type));
  result.add_space_prefix = pieces.add_space_prefix;
  return result;
}

model::GgufVocabulary MergesForGguf(const data::Tokenizer& tokenizer) {
  constexpr int32_t kNormal = 1, kControl = 3;
  const auto vocabulary = data::ParseByteBpeJson(
      ParseJson(tokenizer.file_content(), tokenizer.file_name()), tokenizer.file_name());
  model::GgufVocabulary result;
  result.cut = data::GgufNameOfCut(vocabulary);
  LWM_REQUIRE(!result.cut.empty(),
              "this tokenizer cuts words in a way that has no name in GGUF (gpt-2, smollm, "
              "llama-bpe and qwen2 have); convert to --format hf, or keep tokenizer.json beside "
              "the GGUF file");
  result.tokens = vocabulary.piece_V;
  for (size_t id = 0; id < result.tokens.size(); ++id) {
    if (result.tokens[id].empty()) result.tokens[id] = Cat("[PAD", id, "]");
    result.types.push_back(vocabulary.is_special_V[id] ? kControl : kNormal);
  }
  for (const auto& [left, right] : vocabulary.merges) result.merges.push_back(left + " " + right);
  return result;
}

// Weights whose tokenizer this program cannot read convert nonetheless.
std::unique_ptr<data::Tokenizer> OpenIfReadable(const fs::path& path) {
  try {
    return data::OpenTokenizer(path);
  } catch (const Error& error) {
    std::fprintf(stderr, "no tokenizer is written: %s\n", error.what());
    return nullptr;
  }
}

}  // namespace

std::unique_ptr<data::Tokenizer> FindTokenizer(const std::string& named,
                                               const io::TensorSource& source,
                                               const fs::path& folder, int64_t vocab_size) {
  if (!named.empty() && source.format() == "llama2c" && fs::path(named).extension() == ".bin")
    return data::MakePieceTokenizer(data::ReadLlama2cVocabulary(named, vocab_size), named);
  if (!named.empty()) return data::OpenTokenizer(named);
  if (source.format() == "gguf") return OpenIfReadable(source.where());
  const bool has_one =
      fs::exists(folder / "tokenizer.model") || fs::exists(folder / "tokenizer.json");
  return has_one ? OpenIfReadable(folder) : nullptr;
}

std::map<std::string, std::string> FilesBesideWeights(const fs::path& folder, bool with_tokenizer) {
  std::vector<std::string> names = {"generation_config.json"};
  if (with_tokenizer)
    for (const char* name : {"tokenizer.model", "tokenizer.json", "tokenizer_config.json",
                             "special_tokens_map.json", "chat_template.jinja"})
      names.push_back(name);
  std::map<std::string, std::string> files;
  for (const std::string& name : names)
    if (fs::is_regular_file(folder / name)) files[name] = ReadFile(folder / name);
  return files;
}

model::GgufVocabulary GgufVocabularyOf(const data::Tokenizer& tokenizer) {
  model::GgufVocabulary result = tokenizer.file_name() == "tokenizer.json"
                                     ? MergesForGguf(tokenizer)
                                     : PiecesForGguf(tokenizer);
  result.bos = tokenizer.bos_id();
  result.eos = tokenizer.eos_id();
  result.unknown = tokenizer.unk_id();
  result.padding = tokenizer.pad_id();
  result.add_bos = tokenizer.begins_with_bos();
  return result;
}

}  // namespace lwm::app
