#include "lwm/data/tokenizer.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/random.h"
#include "lwm/data/sentencepiece_model.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/utf8.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

using testing_support::GoldenFolder;
using testing_support::LlamaPieces;
using testing_support::LlamaTokenizer;

// A text file of some variety, and a small model trained on it once.
class TokenizerTest : public testing::Test {
 protected:
  static void SetUpTestSuite() {
    folder_ = new fs::path(fs::path(testing::TempDir()) / Cat("tokenizer_test_", getpid()));
    fs::create_directories(*folder_);
    const char* source = std::getenv("LWM_SOURCE_DIR");
    std::string text =
        ReadFile(fs::path(source ? source : ".") / "samples/text/tom_sawyer.txt").substr(0, 60000);
    std::ofstream(*folder_ / "a.txt") << text << "naïve café — 東京 😀\n";
    std::ofstream(*folder_ / "b.jsonl")
        << R"({"fields": "q,a", "q": "Whitewashing?", "a": "1876 was the year."})"
        << "\n";
    model_ = new std::string(Train(700));
  }
  static void TearDownTestSuite() {
    fs::remove_all(*folder_);
    delete folder_;
    delete model_;
  }

  static std::string Train(int32_t vocab_size) {
    TokenizerTraining training;
    training.inputs = {(*folder_ / "a.txt").string(), (*folder_ / "b.jsonl").string()};
    training.vocab_size = vocab_size;
    return TrainTokenizer(training);
  }
  static std::unique_ptr<Tokenizer> Open() {
    WriteFileAtomically(*folder_ / "tokenizer.model", *model_);
    return OpenTokenizer(*folder_);
  }

  static fs::path* folder_;
  static std::string* model_;
};
fs::path* TokenizerTest::folder_ = nullptr;
std::string* TokenizerTest::model_ = nullptr;

std::string MessageOf(const std::function<void()>& act) {
  try {
    act();
    return "";
  } catch (const Error& error) {
    return error.what();
  }
}

TEST_F(TokenizerTest, TrainedModelHasTheSpecialTokensOfLlama) {
  const auto tokenizer = Open();
  EXPECT_EQ(tokenizer->vocab_size(), 700);
  EXPECT_EQ(tokenizer->unk_id(), 0);
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_EQ(tokenizer->eos_id(), 2);
  EXPECT_EQ(tokenizer->pad_id(), -1);
  EXPECT_EQ(tokenizer->TokenBytes(1), "");
  EXPECT_EQ(tokenizer->TokenBytes(3 + 'A'), "A");
  EXPECT_TRUE(tokenizer->file_content() == *model_);
}

TEST_F(TokenizerTest, TrainingIsDeterministic) { EXPECT_TRUE(Train(700) == *model_); }

TEST_F(TokenizerTest, DigitsAreSplit) {
  const auto tokenizer = Open();
  for (int32_t id = 259; id < tokenizer->vocab_size(); ++id) {
    const std::string bytes = tokenizer->TokenBytes(id);
    const bool has_digit = bytes.find_first_of("0123456789") != std::string::npos;
    EXPECT_TRUE(!has_digit || bytes.size() == 1) << bytes;
  }
}

TEST_F(TokenizerTest, VocabularyThatDoesNotFitTheDataSaysWhatFits) {
  const std::string large = MessageOf([] { Train(100000); });
  const std::string mark = "too large for this text; the largest that fits is ";
  ASSERT_NE(large.find(mark), std::string::npos) << large;
  const int32_t fits = std::stoi(large.substr(large.find(mark) + mark.size()));
  EXPECT_NO_THROW(Train(fits));
  EXPECT_ERROR(Train(fits + 1), kInvalidArgument);
  const std::string small = MessageOf([] { Train(262); });
  EXPECT_NE(small.find("the smallest that fits is 3"), std::string::npos) << small;
  EXPECT_NE(MessageOf([] { Train(10); }).find("too small"), std::string::npos);
}

// Texts of words, spaces, line ends, characters of all lengths and stray bytes.
std::string RandomText(Random& random, size_t parts) {
  const std::vector<std::string> kinds = {
      "the", "fence", " ",        "  ",   "\n", "\t",  "é", "東京", "😀",
      "12",  "\xFF",  "\xE6\x9D", " Tom", "▁",  "<s>", ".", "\r",   std::string(1, '\0')};
  std::string text;
  for (size_t i = 0; i < parts; ++i) text += kinds[random.Below(kinds.size())];
  return text;
}

TEST_F(TokenizerTest, DecodingGivesTheTextBackWithInvalidBytesReplaced) {
  const auto tokenizer = Open();
  Random random(1);
  for (int i = 0; i < 500; ++i) {
    std::string text = RandomText(random, random.Below(40));
    std::string expected = ReplaceInvalidUtf8(text);
    for (size_t at; (at = expected.find("▁")) != std::string::npos;)
      expected.replace(at, std::string("▁").size(), " ");
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode(text)), expected) << text;
  }
}

TEST_F(TokenizerTest, EncodingWordByWordEqualsEncodingTheWholeText) {
  const auto tokenizer = Open();
  // A piece with a space inside that never occurs turns the word-by-word path off.
  PieceVocabulary vocabulary = ParseSentencePieceModel(*model_, "model").vocabulary;
  vocabulary.piece_V.push_back("\x01▁\x01");
  vocabulary.score_V.push_back(-1e9f);
  vocabulary.type_V.push_back(PieceVocabulary::Type::kNormal);
  const auto whole = MakePieceTokenizer(vocabulary, "model");
  Random random(2);
  for (int i = 0; i < 500; ++i) {
    const std::string text = RandomText(random, random.Below(60));
    EXPECT_EQ(tokenizer->Encode(text), whole->Encode(text)) << text;
  }
}

// The ids of the model's folder with the given tokenizer_config.json and added_tokens.json.
std::unique_ptr<Tokenizer> WithSettings(const std::string& model, const std::string& config,
                                        const std::string& added = "{}") {
  const testing_support::TemporaryFolder folder;
  WriteFileAtomically(folder / "tokenizer.model", model);
  WriteFileAtomically(folder / "tokenizer_config.json", config);
  WriteFileAtomically(folder / "added_tokens.json", added);
  return OpenTokenizer(folder.path());
}

std::vector<int32_t> Join(std::vector<int32_t> ids, const std::vector<int32_t>& more) {
  ids.insert(ids.end(), more.begin(), more.end());
  return ids;
}

TEST_F(TokenizerTest, AddedTokensOfTheFolderAreSingleTokens) {
  const std::string added = R"({"<tool>": 700, "<|im_end|>": 702})";
  const auto tokenizer = WithSettings(
      *model_, R"({"eos_token": "<|im_end|>", "legacy": false, "additional_special_tokens": []})",
      added);
  EXPECT_EQ(tokenizer->vocab_size(), 703);
  EXPECT_EQ(tokenizer->eos_id(), 702);
  const auto plain = WithSettings(*model_, R"({"add_prefix_space": false})");
  const std::vector<int32_t> tom = Open()->Encode("Tom"), rest = plain->Encode("was  here");
  EXPECT_EQ(tokenizer->Encode("Tom<tool>was  here"), Join(Join(tom, {700}), rest));
  EXPECT_EQ(tokenizer->Encode("Tom<|im_end|>").size(),
            plain->Encode("<|im_end|>").size() + tom.size());
  EXPECT_EQ(tokenizer->EncodeSpecial("Tom<|im_end|>"), Join(tom, {702}));
  EXPECT_EQ(tokenizer->TokenBytes(700), "<tool>");
  EXPECT_EQ(tokenizer->TokenBytes(701), "");
  EXPECT_EQ(tokenizer->TokenBytes(702), "");
  EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("Tom<tool>was  here")), "Tom<tool>was  here");
}

TEST_F(TokenizerTest, TheSpaceBeforeATextFollowsTheSettings) {
  const std::vector<int32_t> with = Open()->Encode("Tom"), two = Open()->Encode(" Tom");
  const std::string added = R"({"<tool>": 700})";
  const auto old = WithSettings(*model_, R"({"legacy": true})", added);
  EXPECT_EQ(old->Encode("Tom<tool>Tom"), Join(Join(with, {700}), with));
  EXPECT_EQ(old->Encode(" Tom"), two);
  const auto first = WithSettings(*model_, R"({"legacy": false})", added);
  EXPECT_EQ(first->Encode(" Tom"), with);  // a text that begins with a space gets no other
  EXPECT_EQ(first->Encode("\u2581Tom"), with);
  const auto none = WithSettings(*model_, R"({"add_prefix_space": false})", added);
  EXPECT_EQ(none->Encode(" Tom"), with);
  EXPECT_NE(none->Encode("Tom"), with);
  EXPECT_EQ(none->Decode(none->Encode(" Tom")), " Tom");
  EXPECT_EQ(first->Encode("<tool>Tom"), Join({700}, none->Encode("Tom")));
}

TEST_F(TokenizerTest, BosAndEosAroundATextFollowTheSettings) {
  EXPECT_TRUE(Open()->begins_with_bos() && !Open()->ends_with_eos());
  const auto tokenizer =
      WithSettings(*model_, R"({"add_bos_token": false, "add_eos_token": true})");
  EXPECT_TRUE(!tokenizer->begins_with_bos() && tokenizer->ends_with_eos());
  EXPECT_EQ(tokenizer->bos_id(), 1);
}

TEST_F(TokenizerTest, StreamedPiecesJoinToTheWholeAndNeverSplitACharacter) {
  const auto tokenizer = Open();
  Random random(3);
  for (int i = 0; i < 300; ++i) {
    std::vector<int32_t> ids;
    for (uint64_t n = random.Below(30); n > 0; --n)  // mostly byte tokens, in any order
      ids.push_back(static_cast<int32_t>(random.Below(random.Below(2) ? 259 : 700)));
    StreamDecoder decoder(*tokenizer);
    std::string joined;
    for (const int32_t id : ids) {
      const std::string piece = decoder.Push(id);
      EXPECT_EQ(ReplaceInvalidUtf8(piece), piece);
      joined += piece;
    }
    EXPECT_EQ(joined + decoder.Finish(), tokenizer->Decode(ids));
  }
}

TEST_F(TokenizerTest, IdsOutsideTheVocabularyAreRefused) {
  const auto tokenizer = Open();
  EXPECT_ERROR(tokenizer->TokenBytes(700), kInvalidArgument);
  EXPECT_ERROR(tokenizer->TokenBytes(-1), kInvalidArgument);
}

TEST_F(TokenizerTest, DamagedFilesAreNamed) {
  const fs::path file = *folder_ / "damaged.model";
  for (const size_t size : {size_t{0}, size_t{1}, model_->size() / 2, model_->size() - 1}) {
    std::ofstream(file, std::ios::binary) << model_->substr(0, size);
    EXPECT_NE(MessageOf([&] { OpenTokenizer(file); }).find("damaged.model"), std::string::npos)
        << size;
  }
  EXPECT_NE(MessageOf([&] { OpenTokenizer(*folder_ / "none.model"); }).find("none.model"),
            std::string::npos);
  EXPECT_NE(MessageOf([&] { OpenTokenizer(testing::TempDir()); }).find("no tokenizer"),
            std::string::npos);
}

TEST(LlamaTokenizerTest, EncodesAndDecodesAsSentencePiece) {
  const auto tokenizer = LlamaTokenizer();
  const Json golden = ReadJsonFile(GoldenFolder("tokenizer_llama2") / "case.json");
  EXPECT_EQ(golden["vectors"].size(), 63u);
  for (const Json& vector : golden["vectors"]) {
    const auto text = vector["text"].get<std::string>();
    const auto ids = vector["ids"].get<std::vector<int32_t>>();
    EXPECT_EQ(tokenizer->Encode(text), ids) << text;
    const auto decoded = vector["decoded"].get<std::string>();
    EXPECT_EQ(tokenizer->Decode(ids), decoded == "same" ? text : decoded);
  }
  for (const Json& vector : golden["decode_only"])
    EXPECT_EQ(tokenizer->Decode(vector["ids"].get<std::vector<int32_t>>()),
              vector["decoded"].get<std::string>())
        << vector.dump();
}

TEST(LlamaTokenizerTest, StreamsAsSoonAsACharacterIsWhole) {
  const auto tokenizer = LlamaTokenizer();
  const Json golden = ReadJsonFile(GoldenFolder("tokenizer_llama2") / "case.json");
  for (const Json& vector : golden["vectors"]) {
    StreamDecoder decoder(*tokenizer);
    size_t emitted = 0;
    for (size_t i = 0; i < vector["ids"].size(); ++i) {
      emitted += decoder.Push(vector["ids"][i].get<int32_t>()).size();
      EXPECT_EQ(emitted, vector["emitted_bytes_after_token"][i].get<size_t>()) << vector["text"];
    }
    EXPECT_EQ(decoder.Finish(), "");
  }
}

TEST(LlamaTokenizerTest, InconsistentVocabularyIsRefused) {
  PieceVocabulary vocabulary = LlamaPieces();
  vocabulary.score_V.pop_back();
  EXPECT_ERROR(MakePieceTokenizer(vocabulary, "x.gguf"), kCorruptData);
  vocabulary = LlamaPieces();
  vocabulary.eos_id = 32000;
  EXPECT_ERROR(MakePieceTokenizer(vocabulary, "x.gguf"), kCorruptData);
  vocabulary = LlamaPieces();
  vocabulary.piece_V[400] = vocabulary.piece_V[29871];
  vocabulary.type_V[400] = PieceVocabulary::Type::kNormal;
  EXPECT_ERROR(MakePieceTokenizer(vocabulary, "x.gguf"), kCorruptData);
  vocabulary = LlamaPieces();
  vocabulary.piece_V[10] = "<0xZZ>";
  EXPECT_ERROR(MakePieceTokenizer(vocabulary, "x.gguf"), kCorruptData);
}

TEST(Utf8Test, LengthsFollowTheStandard) {
  EXPECT_EQ(Utf8CharacterLength(std::string_view("\0", 1)), 1u);
  EXPECT_EQ(Utf8CharacterLength("\x7F"), 1u);
  EXPECT_EQ(Utf8CharacterLength("\xC2\x80"), 2u);
  EXPECT_EQ(Utf8CharacterLength("\xEF\xBF\xBF"), 3u);
  EXPECT_EQ(Utf8CharacterLength("\xF4\x8F\xBF\xBF"), 4u);
  for (const char* invalid :
       {"", "\x80", "\xC1\xBF", "\xE0\x9F\xBF", "\xED\xA0\x80", "\xF0\x8F\xBF\xBF",
        "\xF4\x90\x80\x80", "\xF5\x80\x80\x80", "\xC2", "\xC2x", "\xE2\x82"})
    EXPECT_EQ(Utf8CharacterLength(invalid), 0u) << invalid;
  EXPECT_TRUE(IsUtf8Beginning("\xE2\x82"));
  EXPECT_TRUE(IsUtf8Beginning("\xF0"));
  EXPECT_FALSE(IsUtf8Beginning("\xED\xA0"));
  EXPECT_FALSE(IsUtf8Beginning("\xE2\x82\xAC"));
  EXPECT_FALSE(IsUtf8Beginning("a"));
  EXPECT_EQ(ReplaceInvalidUtf8("a\xF0\x9F\xA6z"), "a\uFFFD\uFFFD\uFFFDz");
}

}  // namespace
}  // namespace lwm::data
