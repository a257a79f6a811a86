#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/tokenizer_byte_bpe.h"

namespace lwm::data {

// GPT-2's way to cut words.
extern const char* const kGpt2Pattern;

// GGUF's name (tokenizer.ggml.pre) of a way to cut words: "gpt-2" or "smollm"; "" for any other.
std::string GgufNameOfPatterns(const std::vector<std::string>& patterns);

// The vocabulary of a tokenizer.json, with the special ids of the files beside it.
// Throws as OpenTokenizerJson.
ByteBpeVocabulary ReadByteBpeJson(const std::filesystem::path& file);

// The same of the file's content alone: no special ids.
ByteBpeVocabulary ParseByteBpeJson(const Json& json, const std::string& where);

// The reverse: a tokenizer.json that Hugging Face's library reads. Special ids are not in it.
std::string ByteBpeToJson(const ByteBpeVocabulary& vocabulary);

}  // namespace lwm::data
