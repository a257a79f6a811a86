#pragma once

#include <string>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_sentencepiece.h"

namespace lwm::testing_support {

// "<0x0A>": the piece that stands for a byte.
inline std::string BytePiece(size_t byte) {
  const char* digits = "0123456789ABCDEF";
  return std::string("<0x") + digits[byte / 16] + digits[byte % 16] + ">";
}

// <unk>, <s>, </s>, the 256 bytes, then `pieces`, the earlier the likelier.
inline data::PieceVocabulary ByteAndOtherPieces(const std::vector<std::string>& pieces) {
  using Type = data::PieceVocabulary::Type;
  data::PieceVocabulary vocabulary;
  const auto add = [&](const std::string& piece, Type type) {
    vocabulary.score_V.push_back(-static_cast<float>(vocabulary.piece_V.size()));
    vocabulary.piece_V.push_back(piece);
    vocabulary.type_V.push_back(type);
  };
  add("<unk>", Type::kUnknown);
  add("<s>", Type::kControl);
  add("</s>", Type::kControl);
  for (size_t byte = 0; byte < 256; ++byte) add(BytePiece(byte), Type::kByte);
  for (const std::string& piece : pieces) add(piece, Type::kNormal);
  return vocabulary;
}

}  // namespace lwm::testing_support
