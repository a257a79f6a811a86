#include "lwm/data/tokenizer_files.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::TemporaryFolder;
using Type = PieceVocabulary::Type;

// A model over <unk>, <s>, </s>, the space, "a", "b", "ab" and a run of spaces.
std::string SmallModel() {
  PieceVocabulary vocabulary;
  vocabulary.piece_V = {"<unk>", "<s>", "</s>", "\u2581", "a", "b", "ab", "\u2581\u2581"};
  vocabulary.score_V = {0, 0, 0, -5, -6, -7, -1, -2};
  vocabulary.type_V = {Type::kUnknown, Type::kControl, Type::kControl, Type::kNormal,
                       Type::kNormal,  Type::kNormal,  Type::kNormal,  Type::kNormal};
  return MakePieceTokenizer(vocabulary, "small")->file_content();
}

std::unique_ptr<Tokenizer> Open(const std::map<std::string, std::string>& files) {
  const TemporaryFolder folder;
  WriteFiles(files, folder.path());
  return OpenTokenizer(folder.path());
}

TEST(TokenizerFilesTest, ABareModelGetsFilesThatOtherProgramsReadAlike) {
  const auto tokenizer = Open({{"tokenizer.model", SmallModel()}});
  const auto files = TokenizerFiles(*tokenizer);
  EXPECT_EQ(files.at("tokenizer.model"), SmallModel());
  const Json config = Json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(config["tokenizer_class"], "PreTrainedTokenizerFast");
  EXPECT_EQ(config["add_bos_token"], true);
  EXPECT_EQ(config["add_eos_token"], false);
  EXPECT_EQ(config["bos_token"], "<s>");
  EXPECT_EQ(config["eos_token"], "</s>");
  const Json json = Json::parse(files.at("tokenizer.json"));
  EXPECT_EQ(json["model"]["merges"], Json::parse(R"(["a b", "▁ ▁"])"));
  EXPECT_EQ(json["normalizer"]["normalizers"].size(), 2U);
  EXPECT_EQ(json["post_processor"]["single"][0]["SpecialToken"]["id"], "<s>");
  const auto again = Open(files);
  EXPECT_EQ(TokenizerFiles(*again), files);
  EXPECT_EQ(again->Encode("ab  a"), tokenizer->Encode("ab  a"));
  EXPECT_EQ(TokenizerKey(*again), TokenizerKey(*tokenizer));
}

TEST(TokenizerFilesTest, NothingThatStoodBesideAVocabularyIsLost) {
  const std::string config =
      R"({"legacy": false, "add_bos_token": false, "model_max_length": 77, "padding_side": "left",
          "eos_token": {"content": "<|end|>", "lstrip": false}, "pad_token": "</s>",
          "added_tokens_decoder": {"8": {"content": "<|end|>", "special": true},
                                   "9": {"content": "<t>", "rstrip": true}}})";
  const auto tokenizer = Open({{"tokenizer.model", SmallModel()},
                               {"tokenizer_config.json", config},
                               {"chat_template.jinja", "{{ x }}"},
                               {"additional_chat_templates/rag.jinja", "{{ y }}"},
                               {"special_tokens_map.json", R"({"eos_token": "<|end|>"})"}});
  const auto files = TokenizerFiles(*tokenizer);
  EXPECT_EQ(files.at("chat_template.jinja"), "{{ x }}");
  EXPECT_EQ(files.at("additional_chat_templates/rag.jinja"), "{{ y }}");
  const Json written = Json::parse(files.at("tokenizer_config.json"));
  EXPECT_EQ(written["model_max_length"], 77);
  EXPECT_EQ(written["padding_side"], "left");
  EXPECT_EQ(written["pad_token"], "</s>");
  EXPECT_EQ(written["eos_token"]["content"], "<|end|>");
  EXPECT_EQ(written["added_tokens_decoder"]["9"]["rstrip"], true);
  EXPECT_EQ(written["legacy"], false);
  const Json json = Json::parse(files.at("tokenizer.json"));
  EXPECT_EQ(json["pre_tokenizer"]["prepend_scheme"], "first");
  EXPECT_EQ(json["added_tokens"].back()["content"], "<t>");
  const auto again = Open(files);
  EXPECT_EQ(again->eos_id(), 8);
  EXPECT_EQ(again->pad_id(), 2);
  EXPECT_FALSE(again->begins_with_bos());
  EXPECT_EQ(again->Encode("a<t> ab"), tokenizer->Encode("a<t> ab"));
  EXPECT_EQ(TokenizerFiles(*again), files);
}

TEST(TokenizerFilesTest, TheKeyChangesWithWhatChangesIds) {
  const std::string model = SmallModel();
  const auto key = [&](const std::string& config) {
    return TokenizerKey(*Open({{"tokenizer.model", model}, {"tokenizer_config.json", config}}));
  };
  const std::string plain = key("{}");
  EXPECT_EQ(key(R"({"chat_template": "x", "padding_side": "left"})"), plain);
  for (const char* config :
       {R"({"legacy": false})", R"({"add_prefix_space": false})", R"({"add_bos_token": false})",
        R"({"added_tokens_decoder": {"8": {"content": "<t>"}}})"})
    EXPECT_NE(key(config), plain) << config;
}

TEST(TokenizerFilesTest, AModelThatNormalisesGetsNoFileThatCannotSaySo) {
  std::string model = SmallModel();
  model += std::string("\x1A\x02\x20\x01", 4);  // extra spaces are removed
  const auto files = TokenizerFiles(*Open({{"tokenizer.model", model}}));
  EXPECT_FALSE(files.contains("tokenizer.json"));
  EXPECT_EQ(Json::parse(files.at("tokenizer_config.json"))["tokenizer_class"], "LlamaTokenizer");
}

}  // namespace
}  // namespace lwm::data
