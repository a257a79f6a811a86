#include "lwm/data/chat_turns.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/data/field_grammar.h"
#include "lwm/testing/byte_tokenizer.h"
#include "lwm/testing/llama_pieces.h"

namespace lwm::data {
namespace {

using testing_support::BytesAsText;
using testing_support::ByteTokenizer;
using testing_support::LearnedAsText;

FieldGrammar SmallFrames() {
  FieldGrammar grammar;
  grammar.tokens_per_frame = 2;
  grammar.eof_code = 8;
  grammar.eov_code = 9;
  grammar.whole_frames = true;
  return grammar;
}

Example Build(const std::string& turns, const FieldGrammar& grammar = SmallFrames(),
              std::optional<uint64_t> draw_key = {}) {
  return BuildExample({{"chat", Json::parse(turns)}}, {.where = "f.jsonl:1", .draw_key = draw_key},
                      ByteTokenizer(), grammar);
}

TEST(ChatTurnsTest, OnlyAnswersAndTheirEndAreLearned) {
  const Example example = Build(R"([{"role": "user", "content": "hi"},
      {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "2+2?"},
      {"role": "assistant", "content": "4"}])");
  EXPECT_EQ(BytesAsText(example),
            "^You are a helpful assistant. USER: hi ASSISTANT: Hello.$USER: 2+2? ASSISTANT: 4$");
  const std::string first = "^You are a helpful assistant. USER: hi ASSISTANT:";
  const std::string second = "USER: 2+2? ASSISTANT:";
  EXPECT_EQ(LearnedAsText(example),
            std::string(first.size(), '.') + " Hello.$" + std::string(second.size(), '.') + " 4$");
}

TEST(ChatTurnsTest, TokensAreThoseOfThePublishedPrompt) {
  const auto tokenizer = testing_support::LlamaTokenizer();
  const Json line = {{"chat",
                      {{{"role", "user"}, {"content", "What is it?"}},
                       {{"role", "assistant"}, {"content", "A dog."}}}}};
  std::vector<int32_t> wanted = {tokenizer->bos_id()};
  for (const char* text : {"You are a helpful assistant. USER: What is it? ASSISTANT:", "A dog."})
    for (const int32_t id : tokenizer->Encode(text)) wanted.push_back(id);
  wanted.push_back(tokenizer->eos_id());
  EXPECT_EQ(BuildExample(line, {.where = "f"}, *tokenizer, {}).token_n, wanted);
}

TEST(ChatTurnsTest, MediaStandWhereThePublishedPromptHasThem) {
  const Example question = Build(R"([{"role": "system", "content": "Be brief."},
      {"role": "user", "content": ["What is it?", {"type": "image", "codes": [1, 2]}]},
      {"role": "assistant", "content": "A dog."}])");
  EXPECT_EQ(BytesAsText(question),
            "^Be brief. USER: What is it?\n<vision>(1)(2)(9)</vision> ASSISTANT: A dog.$");
  const Example generation = Build(R"([{"role": "user", "content": "Generate a video of rain"},
      {"role": "assistant", "content": [{"type": "video", "codes": [1, 2, 3, 4]}]}])");
  EXPECT_EQ(BytesAsText(generation),
            "^You are a helpful assistant. USER: Generate a video of rain ASSISTANT:<vision>(1)(2)"
            "(8)(3)(4)(9)</vision>$");
  const Example two = Build(R"([{"role": "user", "content": [{"type": "image", "codes": [1, 2]},
      {"type": "image", "codes": [3, 4]}, "Which?"]}, {"role": "assistant", "content": "One."}])");
  EXPECT_EQ(BytesAsText(two),
            "^You are a helpful assistant. USER:<vision>(1)(2)(9)</vision><vision>(3)(4)(9)"
            "</vision> Which? ASSISTANT: One.$");
  const std::string learned = LearnedAsText(generation);
  EXPECT_EQ(learned.substr(learned.find('<')), "<vision>(1)(2)(8)(3)(4)(9)</vision>$");
}

TEST(ChatTurnsTest, DroppedTextLeavesThePromptWithoutCondition) {
  FieldGrammar grammar = SmallFrames();
  grammar.drop_text = 1;
  EXPECT_EQ(BytesAsText(Build(R"([{"role": "user", "content": "Generate an image of rain"},
      {"role": "assistant", "content": [{"type": "image", "codes": [1, 2]}]}])",
                              grammar, 5)),
            "^<vision>(1)(2)(9)</vision>$");
  EXPECT_TRUE(BytesAsText(Build(R"([{"role": "user", "content": "hi"},
      {"role": "assistant", "content": "Hello."}])",
                                grammar, 5))
                  .starts_with("^You are"));
}

TEST(ChatTurnsTest, ErrorsNameTheTurn) {
  const auto expect = [](const std::string& turns, const std::string& message) {
    try {
      Build(turns);
      ADD_FAILURE() << turns;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_NE(std::string(error.what()).find(message), std::string::npos) << error.what();
      EXPECT_TRUE(std::string(error.what()).starts_with("f.jsonl:1: field \"chat"));
    }
  };
  const std::string user = R"({"role": "user", "content": "hi"})";
  const std::string answer = R"({"role": "assistant", "content": "x"})";
  expect("3", "is no list of turns");
  expect("[]", "is no list of turns");
  expect("[3]", "chat[0]\" has no \"role\"");
  expect(R"([{"role": "usr", "content": "a"}])", "want system, user or assistant");
  expect(R"([{"role": "system", "content": "a"}])", "followed by no turn");
  expect("[" + answer + "]", "chat[0]\" must be the user's");
  expect("[" + user + "," + user + "]", "chat[1]\" must be the assistant's");
  expect("[" + user + "]", "since it is the last");
  expect(R"([{"role": "user"}])", "has no \"content\"");
  expect("[" + user + R"(, {"role": "assistant", "content": []}])", "chat[1]\" is empty");
  expect("[" + user + R"(, {"role": "assistant", "content": [{"type": "audio"}]}])", "neither");
  expect("[" + user + R"(, {"role": "assistant", "content": "a\u0000"}])", "NUL");
  expect(
      "[" + user + R"(, {"role": "assistant", "content": [{"type": "image", "codes": [1, 8]}]}])",
      "has 8 at index 1");
}

}  // namespace
}  // namespace lwm::data
