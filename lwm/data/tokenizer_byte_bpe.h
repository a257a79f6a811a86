#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <utility>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {

// A GPT-2 style vocabulary: the text is cut into words by regular expressions, the bytes of each
// word are merged pair by pair. Pieces are written in GPT-2's letters, one printable character per
// byte.
struct ByteBpeVocabulary {
  std::vector<std::string> piece_V;
  std::vector<uint8_t> is_special_V;  // control tokens: plain names, decode to nothing
  std::vector<std::pair<std::string, std::string>> merges;  // first = merged first
  // PCRE2 expressions. Each in turn cuts every part into its matches and what lies between them.
  std::vector<std::string> patterns;
  bool ignore_merges = false;     // a word that is a piece is that piece, whatever the merges
  std::vector<AddedToken> added;  // besides those of is_special_V, or with more said of them
  int32_t bos_id = -1, eos_id = -1, unk_id = -1, pad_id = -1;
  bool add_bos = false, add_eos = false;  // around every text
};

// Throws Error(kCorruptData) naming `where` when a merge's piece or an id is missing, or a pattern
// is no regular expression.
std::unique_ptr<Tokenizer> MakeByteBpeTokenizer(const ByteBpeVocabulary& vocabulary,
                                                const std::string& where);
std::unique_ptr<Tokenizer> MakeByteBpeTokenizer(const ByteBpeVocabulary& vocabulary,
                                                TokenizerSettings settings,
                                                const std::string& where);

// A Hugging Face tokenizer.json of that kind; BOS and EOS are those of tokenizer_config.json or
// config.json beside it, else none. Throws Error(kCorruptData) naming the file and what in it this
// program does not do (another model, a normaliser, a pre-tokenizer other than ByteLevel, Digits
// and Split), Error(kNotFound) when the file cannot be read.
std::unique_ptr<Tokenizer> OpenTokenizerJson(const std::filesystem::path& file,
                                             TokenizerSettings settings);

}  // namespace lwm::data
