#pragma once

#include <filesystem>
#include <map>
#include <string>

#include "lwm/data/tokenizer.h"

namespace lwm::data {

// All files of a tokenizer in a model directory, name -> content: the vocabulary
// (tokenizer.model or tokenizer.json), tokenizer_config.json, and what else stood beside it. Both
// this program and Hugging Face's read the same ids from them: a tokenizer.json stands beside a
// tokenizer.model where it can say the same (SentencePieceToJson), and tokenizer_config.json names
// the class that takes that file as it is and states every setting that has a default elsewhere.
// A name may have one folder ("additional_chat_templates/NAME.jinja").
std::map<std::string, std::string> TokenizerFiles(const Tokenizer& tokenizer);

// Writes files of this kind into a folder, each whole or not at all.
void WriteFiles(const std::map<std::string, std::string>& files,
                const std::filesystem::path& folder);

// A text that differs between tokenizers that may give a text other ids.
std::string TokenizerKey(const Tokenizer& tokenizer);

}  // namespace lwm::data
