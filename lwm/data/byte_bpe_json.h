#pragma once

#include <filesystem>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/tokenizer_byte_bpe.h"
#include "lwm/io/gguf_source.h"

namespace lwm::data {

// GPT-2's way to cut words.
extern const char* const kGpt2Pattern;

// GGUF's name (tokenizer.ggml.pre) of the vocabulary's pre-tokenizer: "gpt-2", "smollm",
// "llama-bpe" or "qwen2"; "" for any other.
std::string GgufPreTokenizer(const ByteBpeVocabulary& vocabulary);

// The vocabulary of a tokenizer.json, with the BOS and EOS ids of config.json beside it where the
// settings name none. Throws as OpenTokenizerJson.
ByteBpeVocabulary ReadByteBpeJson(const std::filesystem::path& file,
                                  const TokenizerSettings& settings);

// The same of the file's content alone: no special ids but those of its template.
ByteBpeVocabulary ParseByteBpeJson(const Json& json, const std::string& where);

// The reverse: a tokenizer.json that Hugging Face's library reads. Special ids are not in it.
std::string ByteBpeToJson(const ByteBpeVocabulary& vocabulary);

// The vocabulary of a GGUF file whose tokenizer.ggml.model is "gpt2". Throws Error(kCorruptData)
// when its lists disagree or its way of cutting words (tokenizer.ggml.pre) is not gpt-2 or smollm.
ByteBpeVocabulary ByteBpeVocabularyOfGguf(const io::GgufMetadata& metadata);

}  // namespace lwm::data
