#pragma once

#include <string>

#include "lwm/data/tokenizer.h"

namespace lwm::data {

// The tokenizer.json that gives Hugging Face's library the ids of a SentencePiece tokenizer: BPE
// whose merges follow the pieces' scores, a space before the text as the settings say, the added
// tokens. "" for a model whose way that file cannot state: unigrams, a text that is normalised or
// loses spaces, spaces at the ends of words.
//
// Merges that make pieces of one score are ranked there, while SentencePiece takes the leftmost;
// trained models have no such pieces.
std::string SentencePieceToJson(const Tokenizer& tokenizer);

}  // namespace lwm::data
