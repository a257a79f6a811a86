#pragma once

#include <filesystem>
#include <string>

#include "lwm/data/tokenizer_byte_bpe.h"

namespace lwm::data {

// GPT-2's way to cut words.
extern const char* const kGpt2Pattern;

// The vocabulary of a tokenizer.json, with the special ids of the files beside it.
// Throws as OpenTokenizerJson.
ByteBpeVocabulary ReadByteBpeJson(const std::filesystem::path& file);

// The reverse: a tokenizer.json that Hugging Face's library reads. Special ids are not in it.
std::string ByteBpeToJson(const ByteBpeVocabulary& vocabulary);

}  // namespace lwm::data
