#include "lwm/data/tokenizer_byte_bpe.h"

#include <gtest/gtest.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/base/random.h"
#include "lwm/data/byte_bpe_json.h"
#include "lwm/data/utf8.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::data {
namespace {

using testing_support::TemporaryFolder;

// Two special tokens, printable ASCII, space, line end and the bytes of é; some merges.
ByteBpeVocabulary SmallVocabulary() {
  ByteBpeVocabulary vocabulary;
  vocabulary.piece_V = {"<|endoftext|>", "<|im_end|>"};
  for (char c = '!'; c <= '~'; ++c) vocabulary.piece_V.emplace_back(1, c);
  for (const char* letter : {"Ġ", "Ċ", "Ã", "©"}) vocabulary.piece_V.emplace_back(letter);
  vocabulary.merges = {{"h", "e"},  {"Ġ", "t"}, {"Ġt", "he"}, {"l", "l"}, {"a", "a"},
                       {"aa", "a"}, {"o", "Ġ"}, {"Ã", "©"},   {"1", "2"}, {"Ġ", "Ġ"}};
  for (const auto& [left, right] : vocabulary.merges) vocabulary.piece_V.push_back(left + right);
  vocabulary.is_special_V.assign(vocabulary.piece_V.size(), 0);
  vocabulary.is_special_V[0] = vocabulary.is_special_V[1] = 1;
  vocabulary.patterns = {kGpt2Pattern};
  return vocabulary;
}

// The pieces of the ids, joined with '/'.
std::string Pieces(const Tokenizer& tokenizer, const std::string& text) {
  std::string pieces;
  for (const int32_t id : tokenizer.Encode(text))
    pieces += (pieces.empty() ? "" : "/") + tokenizer.TokenBytes(id);
  return pieces;
}

std::string MessageOf(const std::function<void()>& act) {
  try {
    act();
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
}

TEST(ByteBpeTest, MergesByRankInsideWords) {
  const auto tokenizer = MakeByteBpeTokenizer(SmallVocabulary(), "small");
  EXPECT_EQ(Pieces(*tokenizer, "the the"), "t/he/ the");
  EXPECT_EQ(Pieces(*tokenizer, "to the"), "t/o/ the");  // "o " would cross a word's beginning
  EXPECT_EQ(Pieces(*tokenizer, "aaaa"), "aa/aa");
  EXPECT_EQ(Pieces(*tokenizer, "aaa"), "aaa");
  EXPECT_EQ(Pieces(*tokenizer, "x   y"), "x/  / /y");
  EXPECT_EQ(Pieces(*tokenizer, "it's"), "i/t/'/s");
  EXPECT_EQ(Pieces(*tokenizer, "12 é\n"), "12/ /é/\n");
  EXPECT_TRUE(tokenizer->Encode("").empty());
}

TEST(ByteBpeTest, DigitPatternSplitsNumbers) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  vocabulary.patterns.insert(vocabulary.patterns.begin(), R"(\p{N})");
  EXPECT_EQ(Pieces(*MakeByteBpeTokenizer(vocabulary, "small"), "a 12"), "a/ /1/2");
}

TEST(ByteBpeTest, SpecialTokensDecodeToNothingAndAreNotParsed) {
  const auto tokenizer = MakeByteBpeTokenizer(SmallVocabulary(), "small");
  EXPECT_EQ(tokenizer->Decode(std::vector<int32_t>{0, 2, 1}), "!");
  EXPECT_GT(tokenizer->Encode("<|im_end|>").size(), 5u);
  EXPECT_ERROR(tokenizer->TokenBytes(tokenizer->vocab_size()), kInvalidArgument);
}

TEST(ByteBpeTest, NamesOfSpecialTokensAreThoseTokensOnlyWhenAskedFor) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  vocabulary.piece_V.push_back("<|im_end|>!");
  vocabulary.is_special_V.push_back(1);
  const auto tokenizer = MakeByteBpeTokenizer(vocabulary, "small");
  const auto the = tokenizer->Encode("the");
  std::vector<int32_t> expected = {1};
  expected.insert(expected.end(), the.begin(), the.end());
  expected.insert(expected.end(), {tokenizer->vocab_size() - 1, 0});
  EXPECT_EQ(EncodeWithSpecialTokens(*tokenizer, "<|im_end|>the<|im_end|>!<|endoftext|>"), expected);
  for (const char* text : {"", "the 12 <|im_end", "!"})
    EXPECT_EQ(EncodeWithSpecialTokens(*tokenizer, text), tokenizer->Encode(text));
}

TEST(ByteBpeTest, BosBeginsTextsOnlyWhereTheVocabularySaysSo) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  vocabulary.bos_id = 1;
  const TemporaryFolder folder;
  WriteFileAtomically(folder / "config.json", R"({"bos_token_id": 1})");
  for (const bool add_bos : {false, true}) {
    vocabulary.add_bos = add_bos;
    const auto tokenizer = MakeByteBpeTokenizer(vocabulary, "small");
    EXPECT_EQ(tokenizer->begins_with_bos(), add_bos);
    WriteFileAtomically(folder / tokenizer->file_name(), tokenizer->file_content());
    EXPECT_EQ(OpenTokenizer(folder.path())->begins_with_bos(), add_bos);
  }
  WriteFileAtomically(folder / "tokenizer_config.json", R"({"add_bos_token": false})");
  EXPECT_FALSE(OpenTokenizer(folder.path())->begins_with_bos());
}

TEST(ByteBpeTest, ByteWithoutLetterIsUnknownOrLeftOut) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  EXPECT_EQ(Pieces(*MakeByteBpeTokenizer(vocabulary, "small"), "a\x04 b"), "a/ /b");
  vocabulary.unk_id = 0;
  EXPECT_EQ(MakeByteBpeTokenizer(vocabulary, "small")->Encode("\x04"), std::vector<int32_t>{0});
}

// Merges the leftmost pair of the lowest rank until there is none: the definition.
std::vector<std::string> MergeNaively(const std::string& word,
                                      const ByteBpeVocabulary& vocabulary) {
  std::vector<std::string> parts;
  for (const char c : word) parts.emplace_back(1, c);
  while (true) {
    size_t best_rank = vocabulary.merges.size(), at = 0;
    for (size_t i = 0; i + 1 < parts.size(); ++i) {
      const auto rank =
          static_cast<size_t>(std::find(vocabulary.merges.begin(), vocabulary.merges.end(),
                                        std::pair(parts[i], parts[i + 1])) -
                              vocabulary.merges.begin());
      if (rank < best_rank) {
        best_rank = rank;
        at = i;
      }
    }
    if (best_rank == vocabulary.merges.size()) return parts;
    parts[at] += parts[at + 1];
    parts.erase(parts.begin() + static_cast<int64_t>(at) + 1);
  }
}

TEST(ByteBpeTest, RandomMergesEqualTheDefinition) {
  Random random(4);
  for (int round = 0; round < 20; ++round) {
    ByteBpeVocabulary vocabulary;
    vocabulary.piece_V = {"a", "b", "c"};
    while (vocabulary.merges.size() < 12) {
      const auto pick = [&] { return vocabulary.piece_V[random.Below(vocabulary.piece_V.size())]; };
      const std::pair<std::string, std::string> merge = {pick(), pick()};
      const std::string joined = merge.first + merge.second;
      if (std::count(vocabulary.piece_V.begin(), vocabulary.piece_V.end(), joined)) continue;
      vocabulary.merges.push_back(merge);
      vocabulary.piece_V.push_back(joined);
    }
    vocabulary.is_special_V.assign(vocabulary.piece_V.size(), 0);
    const auto tokenizer = MakeByteBpeTokenizer(vocabulary, "random");
    for (int i = 0; i < 30; ++i) {
      std::string word;
      for (uint64_t n = 1 + random.Below(30); n > 0; --n)
        word += static_cast<char>('a' + random.Below(3));
      std::string expected;
      for (const std::string& part : MergeNaively(word, vocabulary))
        expected += (expected.empty() ? "" : "/") + part;
      EXPECT_EQ(Pieces(*tokenizer, word), expected);
    }
  }
}

TEST(ByteBpeTest, WrittenFileOpensAsTheSameTokenizer) {
  const auto tokenizer = MakeByteBpeTokenizer(SmallVocabulary(), "small");
  const TemporaryFolder folder;
  WriteFileAtomically(folder / tokenizer->file_name(), tokenizer->file_content());
  const auto plain = OpenTokenizer(folder.path());
  EXPECT_EQ(plain->eos_id(), -1);
  WriteFileAtomically(folder / "config.json", R"({"bos_token_id": 0, "eos_token_id": [1, 0]})");
  EXPECT_EQ(OpenTokenizer(folder.path())->eos_id(), 1);
  WriteFileAtomically(folder / "tokenizer_config.json",
                      R"({"eos_token": {"content": "<|endoftext|>"}, "bos_token": null})");
  const auto again = OpenTokenizer(folder.path());
  EXPECT_EQ(again->eos_id(), 0);
  EXPECT_EQ(again->bos_id(), 0);
  EXPECT_EQ(again->vocab_size(), tokenizer->vocab_size());
  for (const char* text : {"the 12 aaaa\n", "é\xFF!", "  to  the "})
    EXPECT_EQ(again->Encode(text), tokenizer->Encode(text));
}

TEST(ByteBpeTest, WhatIsNotDoneIsRefusedByName) {
  const Json good = Json::parse(MakeByteBpeTokenizer(SmallVocabulary(), "small")->file_content());
  const TemporaryFolder folder;
  const auto open = [&](const Json& json) {
    WriteFileAtomically(folder / "tokenizer.json", json.dump());
    return MessageOf([&] { OpenTokenizer(folder / "tokenizer.json"); });
  };
  EXPECT_EQ(open(good), "");
  Json json = good;
  json["model"]["type"] = "WordPiece";
  EXPECT_NE(open(json).find("model WordPiece"), std::string::npos);
  json = good;
  json["normalizer"] = {{"type", "NFC"}};
  EXPECT_NE(open(json).find("a normalizer"), std::string::npos);
  json = good;
  json["pre_tokenizer"] = {{"type", "Metaspace"}};
  EXPECT_NE(open(json).find("pre-tokenizer Metaspace"), std::string::npos);
  json = good;
  json["pre_tokenizer"]["pretokenizers"][0]["pattern"]["Regex"] = "(";
  EXPECT_NE(open(json).find("not a regular expression"), std::string::npos);
  json = good;
  json["model"]["merges"][0] = "xyz";
  EXPECT_NE(open(json).find("a merge is no pair"), std::string::npos);
  json["model"]["merges"][0] = "x yz";
  EXPECT_NE(open(json).find("the vocabulary lacks"), std::string::npos);
  json = good;
  json["model"]["vocab"]["a"] = -5;
  EXPECT_NE(open(json).find("token id -5"), std::string::npos);
  json = good;
  json.erase("pre_tokenizer");
  EXPECT_NE(open(json).find("pre_tokenizer"), std::string::npos);
}

TEST(ByteBpeTest, WithIgnoreMergesAWordThatIsAPieceIsThatPiece) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  vocabulary.piece_V.emplace_back("Ġxyz");
  vocabulary.is_special_V.push_back(0);
  EXPECT_EQ(Pieces(*MakeByteBpeTokenizer(vocabulary, "small"), "a xyz"), "a/ /x/y/z");
  vocabulary.ignore_merges = true;
  const auto tokenizer = MakeByteBpeTokenizer(vocabulary, "small");
  EXPECT_EQ(Pieces(*tokenizer, "a xyz"), "a/ xyz");
  EXPECT_EQ(Pieces(*tokenizer, "xyz the"), "x/y/z/ the");
  const TemporaryFolder folder;
  WriteFileAtomically(folder / tokenizer->file_name(), tokenizer->file_content());
  EXPECT_EQ(Pieces(*OpenTokenizer(folder.path()), "a xyz"), "a/ xyz");
}

TEST(ByteBpeTest, AddedTokensAreFoundInEveryText) {
  ByteBpeVocabulary vocabulary = SmallVocabulary();
  const auto size = static_cast<int32_t>(vocabulary.piece_V.size());
  vocabulary.piece_V.insert(vocabulary.piece_V.end(), {"<think>", "[SEP]", "\u200b"});
  vocabulary.is_special_V.insert(vocabulary.is_special_V.end(), 3, 0);
  vocabulary.added = {{.id = size, .content = "<think>"},
                      {.id = size + 1, .content = "[SEP]", .lstrip = true, .rstrip = true},
                      {.id = size + 2, .content = "\u200b"}};
  const auto made = MakeByteBpeTokenizer(vocabulary, "small");
  const TemporaryFolder folder;
  WriteFileAtomically(folder / made->file_name(), made->file_content());
  const auto read = OpenTokenizer(folder.path());
  for (const Tokenizer* tokenizer : {made.get(), read.get()}) {
    EXPECT_EQ(Pieces(*tokenizer, "<think><think> the"), "<think>/<think>/ the");
    EXPECT_EQ(Pieces(*tokenizer, "a [SEP] b"), "a/[SEP]/b");
    EXPECT_EQ(Pieces(*tokenizer, "x\u200by<|im_end|>").substr(0, 9), "x/\u200b/y/<");
    EXPECT_EQ(tokenizer->Decode(tokenizer->Encode("a<think>")), "a<think>");
    EXPECT_EQ(tokenizer->special_tokens().size(), 2U);
  }
}

// A tokenizer.json after `change`.
std::string ChangedJson(const std::function<void(Json&)>& change) {
  Json json = Json::parse(MakeByteBpeTokenizer(SmallVocabulary(), "small")->file_content());
  change(json);
  return json.dump();
}

TEST(ByteBpeTest, ATemplateDecidesWhatStandsAroundATextUnlessTheSettingsDo) {
  const TemporaryFolder folder;
  const Json special = {{"SpecialToken", {{"id", "<|im_end|>"}, {"type_id", 0}}}};
  const Json text = {{"Sequence", {{"id", "A"}, {"type_id", 0}}}};
  const Json tokens = {{"<|im_end|>", {{"ids", {1}}, {"tokens", {"<|im_end|>"}}}}};
  const auto write = [&](const Json& single) {
    WriteFileAtomically(folder / "tokenizer.json", ChangedJson([&](Json& json) {
                          json["post_processor"] = {{"type", "TemplateProcessing"},
                                                    {"single", single},
                                                    {"pair", Json::array()},
                                                    {"special_tokens", tokens}};
                        }));
  };
  write({special, text, special});
  auto tokenizer = OpenTokenizer(folder.path());
  EXPECT_EQ(tokenizer->bos_id(), 1);
  EXPECT_TRUE(tokenizer->begins_with_bos() && tokenizer->ends_with_eos());
  WriteFileAtomically(folder / "tokenizer_config.json",
                      R"({"add_bos_token": false, "add_eos_token": false})");
  tokenizer = OpenTokenizer(folder.path());
  EXPECT_FALSE(tokenizer->begins_with_bos() || tokenizer->ends_with_eos());
  WriteFileAtomically(folder / "tokenizer_config.json", R"({"bos_token": "<|endoftext|>"})");
  EXPECT_NE(MessageOf([&] { OpenTokenizer(folder.path()); }).find("adds token 1"),
            std::string::npos);
  write({special, special, text});
  EXPECT_NE(MessageOf([&] { OpenTokenizer(folder.path()); }).find("several special tokens"),
            std::string::npos);
}

TEST(ByteBpeTest, KeysThatChangeIdsAndAreNotUnderstoodAreRefusedByName) {
  const TemporaryFolder folder;
  const std::vector<std::pair<std::string, std::function<void(Json&)>>> changes = {
      {"dropout", [](Json& json) { json["model"]["dropout"] = 0.1; }},
      {"end_of_word_suffix", [](Json& json) { json["model"]["end_of_word_suffix"] = "</w>"; }},
      {"a_new_key", [](Json& json) { json["model"]["a_new_key"] = true; }},
      {"NFC",
       [](Json& json) {
         json["normalizer"] = {{"type", "NFC"}};
       }},
      {"RobertaProcessing",
       [](Json& json) {
         json["post_processor"] = {{"type", "RobertaProcessing"}};
       }},
      {"odd", [](Json& json) { json["added_tokens"][0]["odd"] = true; }},
      {"other_part", [](Json& json) {
         json["other_part"] = {{"a", 1}};
       }}};
  for (const auto& [name, change] : changes) {
    WriteFileAtomically(folder / "tokenizer.json", ChangedJson(change));
    EXPECT_NE(MessageOf([&] { OpenTokenizer(folder.path()); }).find(name), std::string::npos)
        << name;
  }
  WriteFileAtomically(folder / "tokenizer.json", ChangedJson([](Json& json) {
                        json["model"]["end_of_word_suffix"] = "";
                        json["model"]["dropout"] = 0.0;
                        json["truncation"] = {{"max_length", 512}};
                      }));
  OpenTokenizer(folder.path());
}

}  // namespace
}  // namespace lwm::data
