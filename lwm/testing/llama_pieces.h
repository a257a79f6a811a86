#pragma once

#include <memory>
#include <string>

#include "lwm/base/json.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/testing/byte_pieces.h"
#include "lwm/testing/golden_folder.h"

namespace lwm::testing_support {

// A vocabulary of 32000 ids that encodes the texts of the golden cases as the LLaMA-2 tokenizer
// does.
inline data::PieceVocabulary LlamaPieces() {
  using Type = data::PieceVocabulary::Type;
  constexpr size_t kSize = 32000;
  data::PieceVocabulary vocabulary;
  for (size_t id = 0; id < kSize; ++id)
    vocabulary.piece_V.push_back("<unused" + std::to_string(id) + ">");
  vocabulary.score_V.assign(kSize, 0);
  vocabulary.type_V.assign(kSize, Type::kUnused);
  vocabulary.piece_V[0] = "<unk>";
  vocabulary.piece_V[1] = "<s>";
  vocabulary.piece_V[2] = "</s>";
  vocabulary.type_V[0] = Type::kUnknown;
  vocabulary.type_V[1] = vocabulary.type_V[2] = Type::kControl;
  for (size_t byte = 0; byte < 256; ++byte) {
    vocabulary.piece_V[3 + byte] = BytePiece(byte);
    vocabulary.type_V[3 + byte] = Type::kByte;
  }
  for (const Json& piece : ReadJsonFile(GoldenFolder("tokenizer_llama2") / "pieces.json")) {
    const auto id = piece[0].get<size_t>();
    vocabulary.piece_V[id] = piece[1].get<std::string>();
    vocabulary.score_V[id] = piece[2].get<float>();
    vocabulary.type_V[id] = Type::kNormal;
  }
  return vocabulary;
}

inline std::shared_ptr<const data::Tokenizer> LlamaTokenizer() {
  return data::MakePieceTokenizer(LlamaPieces(), "pieces.json");
}

}  // namespace lwm::testing_support
