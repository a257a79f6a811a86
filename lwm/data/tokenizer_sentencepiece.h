#pragma once

#include <memory>
#include <string>

#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {

// A tokenizer from the bytes of a .model file and the settings beside it. Throws
// Error(kCorruptData) naming `where`.
std::unique_ptr<Tokenizer> OpenSentencePiece(std::string content, TokenizerSettings settings,
                                             const std::string& where);

// As MakePieceTokenizer, with settings.
std::unique_ptr<Tokenizer> MakePieceTokenizer(const PieceVocabulary& vocabulary,
                                              TokenizerSettings settings, const std::string& where);

}  // namespace lwm::data
