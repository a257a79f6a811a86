#include "lwm/data/line_form.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/data/field_grammar.h"
#include "lwm/testing/byte_tokenizer.h"

namespace lwm::data {
namespace {

using testing_support::BytesAsText;
using testing_support::ByteTokenizer;
using testing_support::LearnedAsText;

Example Build(const std::string& line, const FieldGrammar& grammar = {}) {
  return BuildExample(Json::parse(line), {.where = "f.jsonl:1"}, ByteTokenizer(), grammar);
}

std::string MessageOf(const std::string& line) {
  try {
    Build(line);
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
    return error.what();
  }
}

TEST(LineFormTest, MessagesAreTheSameExampleAsChat) {
  const std::string turns = R"([{"role": "system", "content": "Be brief."},
      {"role": "user", "content": [{"type": "text", "text": "hi"}], "name": "Bob"},
      {"role": "assistant", "content": "Hello."}, {"role": "user", "content": "2+2?"},
      {"role": "assistant", "content": "4"}])";
  const Example chat = Build(R"({"chat": )" + turns + "}");
  const Example messages = Build(R"({"id": 7, "messages": )" + turns + "}");
  EXPECT_EQ(messages.token_n, chat.token_n);
  EXPECT_EQ(messages.loss_weight_n, chat.loss_weight_n);
  EXPECT_EQ(BytesAsText(messages),
            "^Be brief. USER: hi ASSISTANT: Hello.$USER: 2+2? ASSISTANT: 4$");
}

TEST(LineFormTest, FieldsAndTextGoBeforeMessages) {
  EXPECT_EQ(BytesAsText(Build(R"({"messages": [], "text": "a"})")), "^a$");
  EXPECT_EQ(BytesAsText(Build(R"({"messages": [], "q": "a", "fields": "q"})")), "^a$");
  FieldGrammar grammar;
  grammar.fields = {"q"};
  EXPECT_EQ(BytesAsText(Build(R"({"messages": [], "q": "a"})", grammar)), "^a$");
}

TEST(LineFormTest, AnAnswerOfWeightZeroIsGivenNotLearned) {
  const Example example = Build(R"({"messages": [{"role": "user", "content": "a"},
      {"role": "assistant", "content": "b", "weight": 0}, {"role": "user", "content": "c"},
      {"role": "assistant", "content": "d", "weight": 1}]})");
  const std::string learned = LearnedAsText(example);
  EXPECT_EQ(learned, std::string(learned.size() - 3, '.') + " d$");
}

TEST(LineFormTest, WhatMessagesCannotHoldIsNamed) {
  const auto of_turns = [](const std::string& turns) {
    return MessageOf(R"({"messages": )" + turns + "}");
  };
  EXPECT_EQ(of_turns("3"), "f.jsonl:1: field \"messages\" is no list of turns");
  EXPECT_EQ(
      of_turns(R"([{"role": "tool", "content": "a"}])"),
      "f.jsonl:1: field \"messages[0]\" has the role \"tool\", want system, user or assistant");
  const std::string question = R"([{"role": "user", "content": "a"}, )";
  EXPECT_EQ(of_turns(question + R"({"role": "assistant", "content": null, "tool_calls": [{}]}])"),
            "f.jsonl:1: field \"messages[1]\" has \"tool_calls\", which conversations here cannot "
            "hold");
  EXPECT_EQ(of_turns(question + R"({"role": "assistant", "content": "b", "weight": 0.5}])"),
            "f.jsonl:1: field \"messages[1]\" has a \"weight\" that is neither 0 nor 1");
  EXPECT_NE(of_turns(R"([{"role": "user", "content": [{"type": "image_url", "image_url": {}}]}])")
                .find("want {\"type\": \"image\", \"path\": FILE}"),
            std::string::npos);
}

TEST(LineFormTest, FormsOfOtherProgramsGetAHint) {
  const auto expect = [](const std::string& line, const std::vector<std::string>& parts) {
    const std::string message = MessageOf(line);
    EXPECT_TRUE(message.starts_with("f.jsonl:1: ")) << message;
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(R"({"instruction": "a", "input": "b", "output": "c"})",
         {"Alpaca's form (instruction, input, output)", "\"[instruction+input],output\"",
          "\"messages\""});
  expect(R"({"instruction": "a", "input": "", "output": "c"})", {"\"[instruction],output\""});
  expect(R"({"conversations": [{"from": "human", "value": "a"}]})",
         {"ShareGPT's form (conversations with from and value)", "\"messages\""});
  expect(R"({"prompt": "a", "completion": "b"})", {"\"[prompt],completion\""});
  expect(R"({"body": "a", "title": "b"})", {"\"text\" is missing", "the line has body, title"});
  EXPECT_EQ(Build(R"({"instruction": "a", "output": "c", "fields": "[instruction],output"})")
                .token_n.size(),
            4u);
}

}  // namespace
}  // namespace lwm::data
