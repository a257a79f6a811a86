#pragma once

#include <string>

#include "lwm/data/tokenizer.h"

namespace lwm::data {

// How tokenizer `a` differs from `b` in what texts become, in a few words: the number of ids, the
// bytes of an id, or the ids of a text. "" when nothing of that differs, in whatever files they
// stand. Cost: a pass over the vocabulary.
std::string TokenizerDifference(const Tokenizer& a, const Tokenizer& b);

}  // namespace lwm::data
