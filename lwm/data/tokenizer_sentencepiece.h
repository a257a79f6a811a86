#pragma once

#include <memory>
#include <string>

#include "lwm/data/tokenizer.h"

namespace lwm::data {

// A tokenizer from the bytes of a .model file. Throws Error(kCorruptData) naming `where`.
std::unique_ptr<Tokenizer> OpenSentencePiece(std::string content, const std::string& where);

}  // namespace lwm::data
