#pragma once

#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/added_tokens.h"
#include "lwm/io/gguf_source.h"

namespace lwm::data {

// Settings of a tokenizer outside its vocabulary that decide the ids of a text. Values that no file
// states are empty.
struct TokenizerSettings {
  std::string bos_token, eos_token, unk_token, pad_token;
  std::optional<bool> add_bos, add_eos;  // around every text
  std::optional<bool> add_prefix_space;  // a space before a text's first word
  std::optional<bool> legacy;            // that space also after every added token
  std::vector<AddedToken> added;         // in order of their ids
  // Jinja templates of conversations by name; "default" is the one used if none is named.
  std::map<std::string, std::string> chat_templates;
  // The files that state it, name -> content, as read.
  std::map<std::string, std::string> files;

  // The default template, "" = none.
  std::string chat_template() const;
};

// The settings of a model: of a folder (tokenizer_config.json, added_tokens.json,
// special_tokens_map.json, chat_template.jinja, additional_chat_templates/NAME.jinja), of the
// folder that holds the given tokenizer file, or of a GGUF file. Throws Error(kCorruptData) naming
// the file and the key that is damaged, or that changes the ids of texts in a way this program does
// not know.
TokenizerSettings ReadTokenizerSettings(const std::filesystem::path& path);

// An added token as tokenizer.json and tokenizer_config.json state it, and the reverse. Throws
// Error(kCorruptData) naming `where`.
AddedToken ParseAddedToken(const Json& json, int64_t id, const std::string& where);
Json ToJson(const AddedToken& token, bool with_id);

// The settings in a GGUF file's keys.
TokenizerSettings SettingsOfGguf(const io::GgufMetadata& metadata);

}  // namespace lwm::data
