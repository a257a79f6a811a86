#include "lwm/data/tokenizer_files.h"

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/sentencepiece_json.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfig = "tokenizer_config.json";

void SetName(Json& config, const char* key, const std::string& name) {
  const auto found = config.find(key);
  const bool same =
      found != config.end() && found->is_object() && found->value("content", Json()) == name;
  if (!same) config[key] = name.empty() ? Json() : Json(name);
}

void SetFlag(Json& config, const char* key, const std::optional<bool>& flag) {
  if (flag) config[key] = *flag;
}

Json TemplatesToJson(const std::map<std::string, std::string>& templates) {
  if (templates.size() == 1 && templates.contains("default")) return templates.at("default");
  Json list = Json::array();
  for (const auto& [name, text] : templates) list.push_back({{"name", name}, {"template", text}});
  return list;
}

// The config as it was read, with everything that decides ids spelled out.
Json ConfigOf(const TokenizerSettings& settings, bool has_json) {
  const auto read = settings.files.find(kConfig);
  Json config = read == settings.files.end() ? Json::object() : ParseJson(read->second, kConfig);
  // A class of a model's own would build its tokenizer from the pieces, by rules of its own.
  if (has_json)
    config["tokenizer_class"] = "PreTrainedTokenizerFast";
  else if (!config.contains("tokenizer_class"))
    config["tokenizer_class"] = "LlamaTokenizer";
  SetName(config, "bos_token", settings.bos_token);
  SetName(config, "eos_token", settings.eos_token);
  SetName(config, "unk_token", settings.unk_token);
  SetName(config, "pad_token", settings.pad_token);
  SetFlag(config, "add_bos_token", settings.add_bos);
  SetFlag(config, "add_eos_token", settings.add_eos);
  SetFlag(config, "add_prefix_space", settings.add_prefix_space);
  SetFlag(config, "legacy", settings.legacy);
  Json added = Json::object();
  for (const AddedToken& token : settings.added)
    added[std::to_string(token.id)] = ToJson(token, /*with_id=*/false);
  config["added_tokens_decoder"] = added;
  if (!config.contains("clean_up_tokenization_spaces"))
    config["clean_up_tokenization_spaces"] = false;
  if (!config.contains("chat_template") && !settings.files.contains("chat_template.jinja") &&
      !settings.chat_templates.empty())
    config["chat_template"] = TemplatesToJson(settings.chat_templates);
  return config;
}

}  // namespace

std::map<std::string, std::string> TokenizerFiles(const Tokenizer& tokenizer) {
  const TokenizerSettings& settings = tokenizer.settings();
  std::map<std::string, std::string> files = settings.files;
  files[tokenizer.file_name()] = tokenizer.file_content();
  if (tokenizer.file_name() == "tokenizer.model")
    if (std::string json = SentencePieceToJson(tokenizer); !json.empty())
      files["tokenizer.json"] = std::move(json);
  files[kConfig] = ConfigOf(settings, files.contains("tokenizer.json")).dump(2) + "\n";
  return files;
}

void WriteFiles(const std::map<std::string, std::string>& files, const fs::path& folder) {
  for (const auto& [name, content] : files) {
    fs::create_directories((folder / name).parent_path());
    WriteFileAtomically(folder / name, content);
  }
}

std::string TokenizerKey(const Tokenizer& tokenizer) {
  TokenizerSettings settings = tokenizer.settings();
  settings.files.clear();
  settings.chat_templates.clear();
  return tokenizer.file_content() + ConfigOf(settings, false).dump();
}

}  // namespace lwm::data
