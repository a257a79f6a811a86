#pragma once

#include <string>
#include <string_view>

#include "lwm/data/tokenizer_sentencepiece.h"

namespace lwm::data {

// The fields of a SentencePiece .model file (a serialised protocol buffer) that this program reads.
struct SentencePieceModel {
  PieceVocabulary vocabulary;
  bool is_bpe = false, byte_fallback = false;
  bool normalises = false;  // a character map (NFKC and the like) is applied before encoding
  bool removes_extra_spaces = false;
  bool spaces_at_end = false;                      // the space belongs to the word before it
  std::string unknown_surface = " \xE2\x81\x87 ";  // decoded text of the unknown token
};

// True when the bytes parse as a SentencePiece model with at least one piece.
bool IsSentencePieceModel(std::string_view bytes);

// Throws Error(kCorruptData) naming `where`. Domain: any bytes.
SentencePieceModel ParseSentencePieceModel(std::string_view bytes, const std::string& where);

// The text of a piece: U+2581 is a space.
std::string WithSpaces(std::string_view piece);

// A BPE model with byte fallback over the vocabulary, without normalisation.
std::string SerializeSentencePieceModel(const PieceVocabulary& vocabulary);

}  // namespace lwm::data
