#include "lwm/data/foreign_vocabulary.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"

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
  EXPECT_ERROR(ReadLlama2cVocabulary(path, 511), kCorruptData);
  EXPECT_ERROR(ReadLlama2cVocabulary(path, 513), kCorruptData);
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

// A GGUF file's tokenizer over <unk>, <s>, </s>, "▁", "a", "b", "ab" and what is given.
std::unique_ptr<Tokenizer> GgufTokenizer(const std::vector<std::string>& more_tokens,
                                         const std::vector<float>& more_scores,
                                         const std::vector<int32_t>& more_types,
                                         const std::function<void(io::GgufKeys&)>& change = {}) {
  std::vector<std::string> tokens = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab"};
  std::vector<float> scores = {0, 0, 0, -5, -6, -7, -1};
  std::vector<int32_t> types = {2, 3, 3, 1, 1, 1, 1};
  tokens.insert(tokens.end(), more_tokens.begin(), more_tokens.end());
  scores.insert(scores.end(), more_scores.begin(), more_scores.end());
  types.insert(types.end(), more_types.begin(), more_types.end());
  io::GgufKeys keys;
  keys.AddText("tokenizer.ggml.model", "llama");
  keys.AddTexts("tokenizer.ggml.tokens", tokens);
  keys.AddFloats("tokenizer.ggml.scores", scores);
  keys.AddIntegers("tokenizer.ggml.token_type", types);
  if (change) change(keys);
  const TemporaryFolder folder;
  io::GgufWriter(folder / "a.gguf", keys, {}).Finish();
  return OpenTokenizer(folder / "a.gguf");
}

TEST(ForeignVocabularyTest, PiecesThatStandTwiceOrAreEmptyLeaveTheOthersAsTheyAre) {
  const std::vector<int32_t> ids = GgufTokenizer({}, {}, {})->Encode("ab a");
  EXPECT_EQ(ids, (std::vector<int32_t>{3, 6, 3, 4}));
  EXPECT_EQ(GgufTokenizer({"", ""}, {-1000, -1000}, {1, 1})->Encode("ab a"), ids);
  const auto twice = GgufTokenizer({"ab", "<s>"}, {-2, -1000}, {1, 1});
  EXPECT_EQ(twice->Encode("ab a"), (std::vector<int32_t>{3, 7, 3, 4}));  // the last, as llama.cpp
  EXPECT_EQ(twice->TokenBytes(6), "ab");
  EXPECT_EQ(twice->TokenBytes(7), "ab");
  EXPECT_EQ(twice->bos_id(), 1);
  EXPECT_EQ(twice->EncodeSpecial("<s>"), std::vector<int32_t>{1});
}

TEST(ForeignVocabularyTest, UserDefinedTokensOfGgufAreFoundInEveryText) {
  const auto tokenizer = GgufTokenizer({"<tool>", "x\u2581y"}, {0, 0}, {4, 4});
  EXPECT_EQ(tokenizer->Encode("a<tool>bx y"), (std::vector<int32_t>{3, 4, 7, 3, 5, 8}));
  EXPECT_EQ(tokenizer->TokenBytes(7), "<tool>");
  EXPECT_EQ(tokenizer->TokenBytes(8), "x y");
}

TEST(ForeignVocabularyTest, FlagsOfGgufDecideWhatStandsAroundATextAndUnknownOnesAreRefused) {
  const auto plain = GgufTokenizer({}, {}, {});
  EXPECT_TRUE(plain->begins_with_bos() && !plain->ends_with_eos());
  const auto changed = GgufTokenizer({}, {}, {}, [](io::GgufKeys& keys) {
    keys.AddFlag("tokenizer.ggml.add_bos_token", false);
    keys.AddFlag("tokenizer.ggml.add_eos_token", true);
    keys.AddFlag("tokenizer.ggml.add_space_prefix", false);
    keys.AddFlag("tokenizer.ggml.remove_extra_whitespaces", false);
    keys.AddText("tokenizer.chat_template", "{{ x }}");
  });
  EXPECT_FALSE(changed->begins_with_bos());
  EXPECT_TRUE(changed->ends_with_eos());
  EXPECT_EQ(changed->Encode("a"), std::vector<int32_t>{4});
  EXPECT_EQ(changed->settings().chat_template(), "{{ x }}");
  EXPECT_EQ(changed->settings().eos_token, "</s>");
  try {
    GgufTokenizer({}, {}, {}, [](io::GgufKeys& keys) {
      keys.AddFlag("tokenizer.ggml.remove_extra_whitespaces", true);
    });
    ADD_FAILURE() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    EXPECT_NE(std::string(error.what()).find("remove_extra_whitespaces"), std::string::npos);
  }
}

TEST(ForeignVocabularyTest, GgufListsThatDisagreeAreRefused) {
  EXPECT_ERROR(VocabularyOfKeys(Keys({0, -1.5f}, {})), kCorruptData);
  EXPECT_ERROR(VocabularyOfKeys(Keys({0, -1.5f, 0}, {2, 1})), kCorruptData);
  EXPECT_ERROR(VocabularyOfKeys(Keys({0, -1.5f, 0}, {2, 1, 9})), kCorruptData);
  EXPECT_FALSE(VocabularyOfKeys({}).has_value());
}

}  // namespace
}  // namespace lwm::data
