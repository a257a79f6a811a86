#include "lwm/data/foreign_vocabulary.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gguf_writer.h"
#include "tests/golden_folder.h"
#include "tests/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::GoldenFolder;
using testing_support::TemporaryFolder;
using Type = PieceVocabulary::Type;

TEST(ForeignVocabularyTest, Llama2cTokenizerEncodesLikeItsModelExpects) {
  const auto vocabulary = ReadLlama2cVocabulary(GoldenFolder("tiny_stories") / "tok512.bin", 512);
  EXPECT_EQ(vocabulary.piece_V[0], "<unk>");
  EXPECT_EQ(vocabulary.type_V[2], Type::kControl);
  EXPECT_EQ(vocabulary.piece_V[3 + 0xAB], "<0xAB>");
  const auto tokenizer = MakePieceTokenizer(vocabulary, "tok512.bin");
  const auto ids = tokenizer->Encode("Once upon a time");
  EXPECT_EQ(tokenizer->Decode(ids), "Once upon a time");
  EXPECT_EQ(ids, (std::vector<int32_t>{403, 407, 261, 378}));
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("\xE2\x82\xAC")), "\xE2\x82\xAC");  // byte pieces
}

TEST(ForeignVocabularyTest, WrongSizeOfLlama2cTokenizerIsRefused) {
  const auto path = GoldenFolder("tiny_stories") / "tok512.bin";
  EXPECT_THROW(ReadLlama2cVocabulary(path, 511), Error);
  EXPECT_THROW(ReadLlama2cVocabulary(path, 513), Error);
}

io::GgufKeys Keys(const std::vector<float>& scores, const std::vector<int32_t>& types) {
  io::GgufKeys keys;
  keys.AddText("tokenizer.ggml.model", "llama");
  keys.AddTexts("tokenizer.ggml.tokens", std::vector<std::string>{"<unk>", "a", "<0x41>"});
  keys.AddFloats("tokenizer.ggml.scores", scores);
  if (!types.empty()) keys.AddIntegers("tokenizer.ggml.token_type", types);
  keys.AddUnsigned("tokenizer.ggml.eos_token_id", 1);
  keys.AddFlag("tokenizer.ggml.add_space_prefix", false);
  return keys;
}

std::optional<PieceVocabulary> VocabularyOfKeys(const io::GgufKeys& keys) {
  TemporaryFolder folder;
  io::GgufWriter(folder / "a.gguf", keys, {}).Finish();
  return VocabularyOfGguf(io::GgufSource(folder / "a.gguf").metadata());
}

TEST(ForeignVocabularyTest, GgufVocabularyKeepsPiecesScoresTypesAndIds) {
  const auto vocabulary = VocabularyOfKeys(Keys({0, -1.5f, 0}, {2, 1, 6}));
  ASSERT_TRUE(vocabulary.has_value());
  EXPECT_EQ(vocabulary->piece_V, (std::vector<std::string>{"<unk>", "a", "<0x41>"}));
  EXPECT_EQ(vocabulary->score_V, (std::vector<float>{0, -1.5f, 0}));
  EXPECT_EQ(vocabulary->type_V, (std::vector<Type>{Type::kUnknown, Type::kNormal, Type::kByte}));
  EXPECT_EQ(vocabulary->eos_id, 1);
  EXPECT_FALSE(vocabulary->add_space_prefix);
}

TEST(ForeignVocabularyTest, GgufListsThatDisagreeAreRefused) {
  EXPECT_THROW(VocabularyOfKeys(Keys({0, -1.5f}, {})), Error);
  EXPECT_THROW(VocabularyOfKeys(Keys({0, -1.5f, 0}, {2, 1})), Error);
  EXPECT_THROW(VocabularyOfKeys(Keys({0, -1.5f, 0}, {2, 1, 9})), Error);
  EXPECT_FALSE(VocabularyOfKeys({}).has_value());
}

}  // namespace
}  // namespace lwm::data
