#pragma once

#include <cstdint>
#include <map>
#include <memory>
#include <string>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {

// A SentencePiece vocabulary given piece by piece, as a GGUF file carries it.
struct PieceVocabulary {
  enum class Type : int8_t { kNormal = 1, kUnknown, kControl, kUserDefined, kUnused, kByte };
  std::vector<std::string> piece_V;  // with U+2581 for space
  std::vector<float> score_V;
  std::vector<Type> type_V;
  bool add_space_prefix = true;
  int32_t bos_id = 1, eos_id = 2, unk_id = 0, pad_id = -1;
  std::map<int32_t, std::string> bytes_of;  // of ids that add other bytes than their piece's
};

// A BPE tokenizer over the pieces, without any normalisation; file_content() is a SentencePiece
// model. Throws Error(kCorruptData) naming `where` when the lists disagree or a piece is missing.
std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
                                              const std::string& where);

// The same with settings.
std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
                                              TokenizerSettings settings, const std::string& where);

// A tokenizer from the bytes of a .model file and the settings beside it. Throws
// Error(kCorruptData) naming `where`.
std::unique_ptr<Tokenizer> OpenSentencePiece(std::string content, TokenizerSettings settings,
                                             const std::string& where);

struct TokenizerTraining {
  std::vector<std::string> inputs;     // files, folders, globs: text and JSONL (string values)
  int32_t vocab_size = 0;              // incl. <unk>, <s>, </s> and 256 byte pieces
  double character_coverage = 0.9999;  // characters rarer than that are left to byte pieces
};

// Trains a LLaMA-like SentencePiece BPE model (byte fallback, split digits, no normalisation, ids
// unk 0, bos 1, eos 2) and returns the .model file's content. Deterministic in the inputs.
// Cost: about 0.25 s per MB of English for 8000 pieces. Throws Error(kInvalidArgument) that says
// which size fits when vocab_size is too large for the data or too small for its characters.
std::string TrainTokenizer(const TokenizerTraining& training);

}  // namespace lwm::data
