#pragma once

#include <string>

#include "lwm/data/tokenizer.h"

namespace lwm::data {

// Describes in a few words a difference of tokenizers `a` and `b` in encoding or decoding: the
// number of ids, the bytes of an id, or the ids of a text. "" when there is none; their files may
// differ. Cost: a pass over the vocabulary.
std::string TokenizerDifference(const Tokenizer& a, const Tokenizer& b);

}  // namespace lwm::data
