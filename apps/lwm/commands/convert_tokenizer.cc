#include "commands/convert_tokenizer.h"

#include <cstdio>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/config/generation_config.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/foreign_vocabulary.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/tokenizer_files.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/io/gguf_source.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

constexpr int32_t kNormal = 1, kUnknown = 2, kControl = 3, kUserDefined = 4, kUnused = 5;
constexpr const char* kGeneration = "generation_config.json";
constexpr const char* kTokenizerConfig = "tokenizer_config.json";

checkpoint::GgufVocabulary PiecesForGguf(const data::Tokenizer& tokenizer) {
  const auto pieces =
      data::ParseSentencePieceModel(tokenizer.file_content(), tokenizer.file_name()).vocabulary;
  checkpoint::GgufVocabulary result;
  result.tokens = pieces.piece_V;
  result.scores = pieces.score_V;
  for (const auto type : pieces.type_V) result.types.push_back(static_cast<int32_t>(type));
  result.add_space_prefix = tokenizer.settings().add_prefix_space.value_or(true);
  return result;
}

checkpoint::GgufVocabulary MergesForGguf(const data::Tokenizer& tokenizer) {
  const auto vocabulary = data::ParseByteBpeJson(
      ParseJson(tokenizer.file_content(), tokenizer.file_name()), tokenizer.file_name());
  checkpoint::GgufVocabulary result;
  result.pre_tokenizer = data::GgufPreTokenizer(vocabulary);
  LWM_REQUIRE(!result.pre_tokenizer.empty(),
              "GGUF has no name for this tokenizer's pre-tokenizer (it has gpt-2, smollm, "
              "llama-bpe and qwen2); convert to --format hf, or keep tokenizer.json beside "
              "the GGUF file");
  result.tokens = vocabulary.piece_V;
  result.types.assign(result.tokens.size(), kNormal);
  for (size_t id = 0; id < result.tokens.size(); ++id) {
    if (!result.tokens[id].empty()) continue;
    result.tokens[id] = Cat("[PAD", id, "]");
    result.types[id] = kControl;
  }
  for (const auto& [left, right] : vocabulary.merges) result.merges.push_back(left + " " + right);
  return result;
}

// Added tokens take their places among the pieces; ids that nothing names are unused.
void AddTokens(const data::Tokenizer& tokenizer, checkpoint::GgufVocabulary& vocabulary) {
  constexpr float kNeverMerged = -1000;
  for (size_t id = vocabulary.tokens.size(); id < static_cast<size_t>(tokenizer.vocab_size());
       ++id) {
    vocabulary.tokens.push_back(Cat("[PAD", id, "]"));
    vocabulary.types.push_back(kUnused);
    if (vocabulary.pre_tokenizer.empty()) vocabulary.scores.push_back(kNeverMerged);
  }
  for (const data::AddedToken& token : tokenizer.settings().added) {
    const auto id = static_cast<size_t>(token.id);
    if (token.content.empty() || vocabulary.types[id] == kUnknown) continue;
    vocabulary.tokens[id] = token.content;
    vocabulary.types[id] = token.special ? kControl : kUserDefined;
  }
}

// The text of a file that a GGUF file carries under a key of this program; "" = none.
std::string FileInGguf(const io::TensorSource& source, const std::string& name) {
  const auto* gguf = dynamic_cast<const io::GgufSource*>(&source);
  return gguf ? gguf->metadata().Text(checkpoint::kGgufFiles + name).value_or("") : "";
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

std::map<std::string, std::string> FilesBesideWeights(const fs::path& folder,
                                                      const io::TensorSource& source,
                                                      const data::Tokenizer* tokenizer,
                                                      const config::ModelConfig& config) {
  std::map<std::string, std::string> files;
  const bool is_gguf = source.format() == "gguf";
  if (tokenizer != nullptr) {
    files = data::TokenizerFiles(*tokenizer);
  } else if (!is_gguf) {
    for (const char* name : {"tokenizer.model", "tokenizer.json", kTokenizerConfig,
                             "added_tokens.json", "special_tokens_map.json", "chat_template.jinja"})
      if (fs::is_regular_file(folder / name)) files[name] = ReadFile(folder / name);
  }
  std::string generation = FileInGguf(source, kGeneration);
  if (generation.empty() && !is_gguf && fs::is_regular_file(folder / kGeneration))
    generation = ReadFile(folder / kGeneration);
  if (!generation.empty()) files[kGeneration] = config::WithEosOf(config, generation);
  return files;
}

checkpoint::GgufVocabulary GgufVocabularyOf(const data::Tokenizer& tokenizer,
                                            const config::ModelConfig& config,
                                            const std::map<std::string, std::string>& files) {
  checkpoint::GgufVocabulary result = tokenizer.file_name() == "tokenizer.json"
                                          ? MergesForGguf(tokenizer)
                                          : PiecesForGguf(tokenizer);
  AddTokens(tokenizer, result);
  result.bos = tokenizer.bos_id();
  result.eos = config.eos_token_id >= 0 ? config.eos_token_id : tokenizer.eos_id();
  result.more_eos = config.more_eos_token_ids;
  result.unknown = tokenizer.unk_id();
  result.padding = tokenizer.pad_id();
  result.add_bos = tokenizer.begins_with_bos();
  result.add_eos = tokenizer.ends_with_eos();
  result.chat_templates = tokenizer.settings().chat_templates;
  for (const char* name : {kTokenizerConfig, kGeneration}) {
    const auto found = files.find(name);
    if (found == files.end()) continue;
    Json json = ParseJson(found->second, name);
    json.erase("chat_template");  // has keys of its own
    result.files[name] = json.dump();
  }
  return result;
}

}  // namespace lwm::app
