// Damaged tokenizer files of every kind: refused with an Error that names the file, or, where the
// damage leaves a whole file, a tokenizer that works.
#include <gtest/gtest.h>

#include <algorithm>
#include <fstream>
#include <string>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/foreign_vocabulary.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/tokenizer.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/utf8.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/testing/byte_pieces.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::TemporaryFolder;
using Type = PieceVocabulary::Type;

PieceVocabulary SmallPieces() {
  return testing_support::ByteAndOtherPieces({"th", "▁a", "ab", "▁", "a", "b", "t", "h"});
}

std::string ByteBpeJson() {
  ByteBpeVocabulary vocabulary;
  vocabulary.piece_V = {"<|end|>", "a", "b", "c", "Ġ", "ab", "Ġc"};
  vocabulary.is_special_V = {1, 0, 0, 0, 0, 0, 0};
  vocabulary.merges = {{"a", "b"}, {"Ġ", "c"}};
  vocabulary.patterns = {kGpt2Pattern};
  return ByteBpeToJson(vocabulary);
}

std::string GgufContent() {
  const PieceVocabulary pieces = SmallPieces();
  io::GgufKeys keys;
  std::vector<int32_t> types;
  for (const Type type : pieces.type_V) types.push_back(static_cast<int32_t>(type));
  keys.AddText("tokenizer.ggml.model", "llama");
  keys.AddTexts("tokenizer.ggml.tokens", pieces.piece_V);
  keys.AddFloats("tokenizer.ggml.scores", pieces.score_V);
  keys.AddIntegers("tokenizer.ggml.token_type", types);
  const TemporaryFolder folder;
  io::GgufWriter(folder / "v.gguf", keys, {}).Finish();
  return ReadFile(folder / "v.gguf");
}

// "" when the bytes open as a tokenizer that works, else the message.
std::string RefusalOf(const std::string& content, const std::filesystem::path& file) {
  std::ofstream(file, std::ios::binary) << content;
  try {
    const auto tokenizer = OpenTokenizer(file);
    const auto ids = tokenizer->Encode("the ab c\n\xC3\xA9");
    for (const int32_t id : ids) EXPECT_TRUE(id >= 0 && id < tokenizer->vocab_size());
    const std::string text = tokenizer->Decode(ids);
    EXPECT_EQ(ReplaceInvalidUtf8(text), text);
    return "";
  } catch (const Error& error) {
    EXPECT_NE(std::string(error.what()).find(file.string()), std::string::npos) << error.what();
    EXPECT_TRUE(error.code() == ErrorCode::kCorruptData || error.code() == ErrorCode::kNotFound)
        << error.what();
    return error.what();
  }
}

struct Outcome {
  int variants = 0, refused = 0;
};

// About `count` places of the file: cut there, and its byte changed in one of several ways.
Outcome Damage(const std::string& whole, size_t count, bool cut) {
  const TemporaryFolder folder;
  const std::filesystem::path file = folder / "tokenizer.bin";
  EXPECT_EQ(RefusalOf(whole, file), "");
  constexpr int kChanges[] = {0x01, 0x80, 0xff, 0x08, 0x7e};
  Outcome outcome;
  for (size_t at = 0; at < whole.size(); at += std::max<size_t>(1, whole.size() / count)) {
    std::string damaged = cut ? whole.substr(0, at) : whole;
    if (!cut) damaged[at] = static_cast<char>(damaged[at] ^ kChanges[outcome.variants % 5]);
    ++outcome.variants;
    outcome.refused += !RefusalOf(damaged, file).empty();
  }
  return outcome;
}

TEST(TokenizerDamageTest, CutFilesAreRefusedByName) {
  const Outcome json = Damage(ByteBpeJson(), 250, true);
  EXPECT_GE(json.variants, 200);
  EXPECT_EQ(json.refused, json.variants);
  const Outcome gguf = Damage(GgufContent(), 250, true);
  EXPECT_GE(gguf.variants, 200);
  EXPECT_GE(gguf.refused, gguf.variants - 1);  // the last bytes only fill up to the alignment
  // A protocol buffer has no length: cut between pieces it is a smaller vocabulary.
  const Outcome pieces = Damage(SerializeSentencePieceModel(SmallPieces()), 250, true);
  EXPECT_GE(pieces.variants, 200);
  EXPECT_GE(pieces.refused, pieces.variants / 2);
}

TEST(TokenizerDamageTest, ChangedBytesAreRefusedOrHarmless) {
  for (const std::string& content :
       {ByteBpeJson(), GgufContent(), SerializeSentencePieceModel(SmallPieces())}) {
    const Outcome outcome = Damage(content, 250, false);
    EXPECT_GE(outcome.variants, 200);
    EXPECT_GE(outcome.refused, 10);
  }
}

}  // namespace
}  // namespace lwm::data
