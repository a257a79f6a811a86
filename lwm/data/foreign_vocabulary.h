#pragma once

#include <filesystem>
#include <optional>

#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/io/gguf_source.h"

namespace lwm::data {

// The SentencePiece vocabulary inside a GGUF file (tokenizer.ggml.model "llama"); nothing when the
// file carries none or one of another kind. Throws Error(kCorruptData) when its lists disagree.
std::optional<PieceVocabulary> VocabularyOfGguf(const io::GgufMetadata& metadata);

// llama2.c's tokenizer.bin: the longest piece's length, then score, length and bytes of each of
// `vocab_size` pieces; 0 is <unk>, 1 and 2 are BOS and EOS, 3 to 258 the single bytes.
// Throws Error(kCorruptData) when the file does not hold exactly that.
PieceVocabulary ReadLlama2cVocabulary(const std::filesystem::path& path, int64_t vocab_size);

}  // namespace lwm::data
