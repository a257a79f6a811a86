#include "lwm/data/tokenizer_settings.h"

#include <algorithm>
#include <array>
#include <fstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/sentencepiece_model.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

constexpr const char* kConfig = "tokenizer_config.json";
constexpr const char* kTokensMap = "special_tokens_map.json";
constexpr const char* kAddedTokens = "added_tokens.json";
constexpr const char* kTemplate = "chat_template.jinja";
constexpr const char* kTemplateFolder = "additional_chat_templates";
constexpr const char* kDefault = "default";
// This program's own key for the tokenizer_config.json that a GGUF file was made with; GGUF's own
// flags count before it.
constexpr const char* kConfigInGguf = "lwm.file.tokenizer_config.json";

// The text of "<s>" or {"content": "<s>"}; "" for null and absent ones.
std::string TokenText(const Json& object, const std::string& key, const std::string& where) {
  const auto found = object.find(key);
  if (found == object.end() || found->is_null()) return "";
  if (found->is_object()) return JsonGet<std::string>(*found, "content", where);
  return JsonGet<std::string>(object, key, where);
}

std::optional<bool> Flag(const Json& object, const char* key, const std::string& where) {
  if (!object.contains(key) || object.at(key).is_null()) return {};
  return JsonGet<bool>(object, key, where);
}

void ReadNames(const Json& object, const std::string& where, TokenizerSettings& settings) {
  const std::pair<const char*, std::string*> names[] = {{"bos_token", &settings.bos_token},
                                                        {"eos_token", &settings.eos_token},
                                                        {"unk_token", &settings.unk_token},
                                                        {"pad_token", &settings.pad_token}};
  for (const auto& [key, name] : names)
    if (const std::string text = TokenText(object, key, where); !text.empty()) *name = text;
}

// Keys whose value would change the ids of a text, and the values that change nothing.
void RefuseUnknown(const Json& config, const std::string& where) {
  const std::pair<const char*, Json> harmless[] = {{"do_lower_case", false},
                                                   {"strip_accents", false},
                                                   {"keep_accents", true},
                                                   {"do_basic_tokenize", nullptr},
                                                   {"sp_model_kwargs", Json::object()},
                                                   {"remove_space", false},
                                                   {"do_normalize", false}};
  for (const auto& [key, value] : harmless) {
    const auto found = config.find(key);
    if (found == config.end() || found->is_null() || *found == value) continue;
    ThrowJsonField(where, key,
                   "is " + found->dump().substr(0, 60) +
                       ", which changes the ids of texts; this program does not do that");
  }
  const auto map = config.find("auto_map");
  if (map != config.end() && map->is_object() && map->contains("AutoTokenizer"))
    ThrowJsonField(where, "auto_map",
                   "names a tokenizer that is a program of its own; only vocabularies are read");
}

void ReadAddedTokensDecoder(const Json& config, const std::string& where,
                            std::vector<AddedToken>& added) {
  const auto decoder = config.find("added_tokens_decoder");
  if (decoder == config.end() || decoder->is_null()) return;
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, decoder->is_object(), where,
                 ": \"added_tokens_decoder\" must be an object");
  for (const auto& [number, token] : decoder->items()) {
    const bool is_number = !number.empty() && number.size() < 10 &&
                           number.find_first_not_of("0123456789") == std::string::npos;
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, is_number, where,
                   ": \"added_tokens_decoder\" has the key \"", number, "\", want a token id");
    added.push_back(ParseAddedToken(token, std::stoll(number), where));
  }
}

void ReadTemplates(const Json& config, const std::string& where, TokenizerSettings& settings) {
  const auto found = config.find("chat_template");
  if (found == config.end() || found->is_null()) return;
  if (!found->is_array()) {
    settings.chat_templates[kDefault] = JsonGet<std::string>(config, "chat_template", where);
    return;
  }
  for (const Json& entry : *found)
    settings.chat_templates[JsonGet<std::string>(entry, "name", where)] =
        JsonGet<std::string>(entry, "template", where);
}

void ReadConfig(const Json& config, const std::string& where, TokenizerSettings& settings) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, config.is_object(), where, ": want a JSON object");
  RefuseUnknown(config, where);
  ReadNames(config, where, settings);
  settings.add_bos = Flag(config, "add_bos_token", where);
  settings.add_eos = Flag(config, "add_eos_token", where);
  settings.add_prefix_space = Flag(config, "add_prefix_space", where);
  settings.legacy = Flag(config, "legacy", where);
  ReadAddedTokensDecoder(config, where, settings.added);
  ReadTemplates(config, where, settings);
}

// Names that the files list as special.
std::vector<std::string> SpecialNames(const TokenizerSettings& settings,
                                      const std::vector<Json>& objects) {
  std::vector<std::string> names = {settings.bos_token, settings.eos_token, settings.unk_token,
                                    settings.pad_token};
  for (const Json& object : objects) {
    for (const char* key : {"additional_special_tokens", "extra_special_tokens"}) {
      const auto list = object.find(key);
      if (list == object.end()) continue;
      for (const Json& entry : *list) {  // of an object: its values
        const Json& text =
            entry.is_object() && entry.contains("content") ? entry["content"] : entry;
        if (text.is_string()) names.push_back(text.get<std::string>());
      }
    }
    for (const char* key : {"cls_token", "sep_token", "mask_token"})
      names.push_back(TokenText(object, key, key));
  }
  return names;
}

// added_tokens.json: name -> id. For the same ids tokenizer_config.json takes precedence.
void ReadAddedTokens(const Json& map, const std::string& where,
                     const std::vector<std::string>& special, std::vector<AddedToken>& added) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, map.is_object(), where, ": want a JSON object");
  for (const auto& [content, id] : map.items()) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, id.is_number_integer(), where, ": the id of \"",
                   content, "\" is no number");
    const auto number = id.get<int64_t>();
    const auto same_id = [&](const AddedToken& token) { return token.id == number; };
    if (std::any_of(added.begin(), added.end(), same_id)) continue;
    const bool is_special = std::find(special.begin(), special.end(), content) != special.end();
    added.push_back(
        ParseAddedToken({{"content", content}, {"special", is_special}}, number, where));
  }
}

void ReadTemplateFiles(const fs::path& folder, TokenizerSettings& settings) {
  if (const fs::path file = folder / kTemplate; fs::exists(file)) {
    settings.files[kTemplate] = ReadFile(file);
    settings.chat_templates[kDefault] = settings.files[kTemplate];
  }
  if (!fs::is_directory(folder / kTemplateFolder)) return;
  for (const auto& entry : fs::directory_iterator(folder / kTemplateFolder)) {
    if (entry.path().extension() != ".jinja") continue;
    const std::string name = entry.path().filename().string();
    const std::string text = ReadFile(entry.path());
    settings.files[Cat(kTemplateFolder, "/", name)] = text;
    settings.chat_templates[entry.path().stem().string()] = text;
  }
}

// Keys of a GGUF file that decide ids or stops, and are not understood.
void RefuseUnknownKeys(const io::GgufMetadata& metadata) {
  constexpr std::string_view kPrefix = "tokenizer.ggml.";
  constexpr std::string_view kUnderstood[] = {
      "model",  "pre",           "tokens",        "scores",           "token_type",
      "merges", "add_bos_token", "add_eos_token", "add_space_prefix", "token_type_count"};
  for (const auto& [key, value] : metadata.values) {
    if (!key.starts_with(kPrefix) || key.ends_with("_token_id")) continue;
    const std::string name = key.substr(kPrefix.size());
    if (std::find(std::begin(kUnderstood), std::end(kUnderstood), name) != std::end(kUnderstood))
      continue;
    const bool is_false = std::all_of(value.bytes.begin(), value.bytes.end(),
                                      [](std::byte byte) { return byte == std::byte{0}; });
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, is_false, metadata.where, ": ", key,
                   " changes the ids of texts in a way that this program does not know");
  }
}

// Tokens of type 4 are found in every text.
void ReadUserDefined(const io::GgufMetadata& metadata, const std::vector<std::string>& tokens,
                     std::vector<AddedToken>& added) {
  constexpr double kUserDefined = 4;
  const std::vector<double> types = metadata.Numbers("tokenizer.ggml.token_type");
  const auto is_listed = [&](int32_t id) {
    return std::any_of(added.begin(), added.end(),
                       [&](const AddedToken& token) { return token.id == id; });
  };
  const bool has_marks = metadata.Text("tokenizer.ggml.model") == "llama";
  for (size_t id = 0; id < tokens.size() && id < types.size(); ++id)
    if (types[id] == kUserDefined && !is_listed(static_cast<int32_t>(id)))
      added.push_back({.id = static_cast<int32_t>(id),
                       .content = has_marks ? WithSpaces(tokens[id]) : tokens[id],
                       .normalized = false});
}

bool IsGguf(const fs::path& path) {
  std::ifstream file(path, std::ios::binary);
  std::array<char, 4> magic = {};
  file.read(magic.data(), magic.size());
  return std::string_view(magic.data(), magic.size()) == "GGUF";
}

TokenizerSettings ReadFolder(const fs::path& folder) {
  TokenizerSettings settings;
  const auto read = [&](const char* name) {
    if (!fs::exists(folder / name)) return Json(Json::object());
    settings.files[name] = ReadFile(folder / name);
    return ParseJson(settings.files[name], (folder / name).string());
  };
  const Json config = read(kConfig), map = read(kTokensMap), added = read(kAddedTokens);
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, map.is_object(), (folder / kTokensMap).string(),
                 ": want a JSON object");
  ReadConfig(config, (folder / kConfig).string(), settings);
  // The newer form states the added tokens in tokenizer_config.json, and its names count.
  const bool newer = config.contains("added_tokens_decoder");
  ReadNames(map, (folder / kTokensMap).string(), settings);
  if (newer) ReadNames(config, (folder / kConfig).string(), settings);
  ReadAddedTokens(added, (folder / kAddedTokens).string(), SpecialNames(settings, {config, map}),
                  settings.added);
  std::sort(settings.added.begin(), settings.added.end(),
            [](const AddedToken& a, const AddedToken& b) { return a.id < b.id; });
  ReadTemplateFiles(folder, settings);
  return settings;
}

}  // namespace

std::string TokenizerSettings::chat_template() const {
  const auto found = chat_templates.find(kDefault);
  return found == chat_templates.end() ? "" : found->second;
}

AddedToken ParseAddedToken(const Json& json, int64_t id, const std::string& where) {
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, id >= 0 && id <= INT32_MAX, where, ": token id ", id);
  AddedToken token;
  token.id = static_cast<int32_t>(id);
  token.content = JsonGet<std::string>(json, "content", where);
  token.special = JsonGet<bool>(json, "special", where, false);
  token.lstrip = JsonGet<bool>(json, "lstrip", where, false);
  token.rstrip = JsonGet<bool>(json, "rstrip", where, false);
  token.single_word = JsonGet<bool>(json, "single_word", where, false);
  token.normalized = Flag(json, "normalized", where);
  return token;
}

Json ToJson(const AddedToken& token, bool with_id) {
  Json json = {{"content", token.content},
               {"lstrip", token.lstrip},
               {"normalized", token.normalized.value_or(false)},
               {"rstrip", token.rstrip},
               {"single_word", token.single_word},
               {"special", token.special}};
  if (with_id) json["id"] = token.id;
  return json;
}

TokenizerSettings SettingsOfGguf(const io::GgufMetadata& metadata) {
  RefuseUnknownKeys(metadata);
  TokenizerSettings settings;
  if (const auto text = metadata.Text(kConfigInGguf)) {
    settings.files[kConfig] = *text;
    ReadConfig(ParseJson(*text, kConfigInGguf), kConfigInGguf, settings);
  }
  const std::vector<std::string> tokens = metadata.Texts("tokenizer.ggml.tokens");
  const auto name = [&](const std::string& key) {
    const int64_t id = metadata.Integer("tokenizer.ggml." + key + "_token_id").value_or(-1);
    return id >= 0 && id < static_cast<int64_t>(tokens.size()) ? tokens[static_cast<size_t>(id)]
                                                               : "";
  };
  // The tokenizer's EOS may be another than the first id that ends a text, which GGUF's key is.
  const auto read_name = [&](const char* key, std::string& text) {
    if (text.empty()) text = name(key);
  };
  read_name("bos", settings.bos_token);
  read_name("eos", settings.eos_token);
  read_name("unknown", settings.unk_token);
  read_name("padding", settings.pad_token);
  const auto read_flag = [&](const char* key, std::optional<bool>& flag) {
    if (const auto stated = metadata.Flag(key)) flag = stated;
  };
  read_flag("tokenizer.ggml.add_bos_token", settings.add_bos);
  read_flag("tokenizer.ggml.add_eos_token", settings.add_eos);
  read_flag("tokenizer.ggml.add_space_prefix", settings.add_prefix_space);
  ReadUserDefined(metadata, tokens, settings.added);
  for (const std::string& other : metadata.Texts("tokenizer.chat_templates"))
    if (const auto text = metadata.Text("tokenizer.chat_template." + other))
      settings.chat_templates[other] = *text;
  if (const auto text = metadata.Text("tokenizer.chat_template"))
    settings.chat_templates[kDefault] = *text;
  return settings;
}

TokenizerSettings ReadTokenizerSettings(const fs::path& path) {
  if (!fs::is_directory(path) && IsGguf(path)) {
    const MappedFile file(path);
    return SettingsOfGguf(io::ParseGguf(file.bytes(), path.string()).metadata);
  }
  if (fs::is_directory(path)) return ReadFolder(path);
  return ReadFolder(path.has_parent_path() ? path.parent_path() : fs::path("."));
}

}  // namespace lwm::data
