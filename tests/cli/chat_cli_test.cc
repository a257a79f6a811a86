// generate --chat: templates of the model and of a file, messages, and a real model's answer.
#include <gtest/gtest.h>

#include <cstdlib>
#include <filesystem>
#include <string>

#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/data/chat_template.h"
#include "lwm/testing/llama_pieces.h"
#include "lwm/testing/temporary_folder.h"
#include "lwm/testing/tiny_model_directory.h"
#include "tests/cli/run_program.h"

namespace lwm {
namespace {

namespace fs = std::filesystem;
using testing_support::ProgramResult;
using testing_support::RunLwm;

constexpr char kTemplate[] =
    "{{ bos_token }}{% for m in messages %}[{{ m.role }}] {{ m.content }}</s>{% endfor %}";

class ChatCliTest : public testing::Test {
 protected:
  ChatCliTest() {
    testing_support::WriteTinyModelDirectory(folder_ / "model", testing_support::TinyConfig(),
                                             *testing_support::LlamaTokenizer());
    WriteFileAtomically(folder_ / "own.jinja", kTemplate);
  }

  ProgramResult Generate(const std::string& flags) const {
    return RunLwm("generate --dtype f32 --temperature 0 --max-new-tokens 8 --model " +
                  Path("model") + " " + flags);
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  void GiveTemplate(const std::string& text) const {
    WriteFileAtomically(folder_ / "model/chat_template.jinja", text);
  }

  // The prompt's ids as "1,2,3".
  std::string PromptIds(const std::vector<data::ChatMessage>& messages) const {
    const auto tokenizer = data::OpenTokenizer(folder_ / "model");
    std::string ids;
    for (const int32_t id :
         data::EncodeChat(*tokenizer, jinja::Template(kTemplate, "test"), messages))
      ids += (ids.empty() ? "" : ",") + std::to_string(id);
    return ids;
  }

  const testing_support::TemporaryFolder folder_;
};

TEST_F(ChatCliTest, ThePromptIsWrittenInTheModelsTemplateOrThatOfAFile) {
  const ProgramResult ids =
      Generate("--ids " + PromptIds({{"system", "Be brief."}, {"user", "Hello </s>"}}));
  ASSERT_EQ(ids.exit_code, 0) << ids.err;
  const std::string flags = "--chat --system 'Be brief.' --prompt 'Hello </s>'";
  const ProgramResult of_file = Generate(flags + " --template " + Path("own.jinja"));
  ASSERT_EQ(of_file.exit_code, 0) << of_file.err;
  GiveTemplate(kTemplate);
  const ProgramResult of_model = Generate(flags);
  EXPECT_EQ(of_model.out, of_file.out);
  const auto tokenizer = data::OpenTokenizer(folder_ / "model");
  data::StreamDecoder decoder(*tokenizer);
  decoder.Push(tokenizer->Encode("a")[0]);  // the answer does not stand at a text's beginning
  std::string text;
  for (const Json& id : ParseJson(ids.out, "stdout")) text += decoder.Push(id.get<int32_t>());
  EXPECT_EQ(of_model.out, text + decoder.Finish() + "\n");
}

TEST_F(ChatCliTest, WithoutATemplateOrWithAWrongOneTheErrorSaysSo) {
  const auto expect = [&](const std::string& flags, int exit_code, const std::string& message) {
    const ProgramResult run = Generate(flags);
    EXPECT_EQ(run.exit_code, exit_code) << run.err;
    EXPECT_NE(run.err.find(message), std::string::npos) << run.err;
    EXPECT_EQ(run.out, "");
  };
  expect("--chat --prompt a", 2, "has no chat template");
  expect("--prompt a --system b", 2, "--chat");
  expect("--prompt a --template " + Path("own.jinja"), 2, "--chat");
  expect("--chat --ids 1", 2, "--ids");
  expect("--chat --prompt a --template " + Path("none"), 1, "none");
  GiveTemplate("a\n{% include 'b' %}");
  expect("--chat --prompt a", 1, "(chat template):2: the tag {% include %} is not supported");
  GiveTemplate("{{ raise_exception('only tools') }}");
  expect("--chat --prompt a", 2, "refuses the conversation: only tools");
}

TEST_F(ChatCliTest, AnEmptyAnswerSaysWhichTokenEndedIt) {
  const ProgramResult first = Generate("--ids " + PromptIds({{"user", "a"}}));
  ASSERT_EQ(first.exit_code, 0) << first.err;
  Json config = ReadJsonFile(folder_ / "model/config.json");
  config["eos_token_id"] = ParseJson(first.out, "stdout")[0];
  WriteFileAtomically(folder_ / "model/config.json", config.dump());
  GiveTemplate(kTemplate);
  const ProgramResult run = Generate("--chat --prompt a");
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "\n");
  EXPECT_NE(run.err.find("empty answer: the model ended it at once with the end-of-text token"),
            std::string::npos)
      << run.err;
}

std::string SmolLm2() {
  if (const char* file = std::getenv("LWM_SMOLLM2")) return file;
  const char* source = std::getenv("LWM_SOURCE_DIR");
  const fs::path file =
      fs::path(source ? source : ".") / "models/smollm2/SmolLM2-135M-Instruct.Q4_1.gguf";
  return fs::exists(file) ? file.string() : "";
}

TEST(SmolLm2ChatTest, AnswersAQuestionWithItsOwnTemplate) {
  if (SmolLm2().empty()) GTEST_SKIP() << "wants the model (scripts/fetch-smollm2)";
  const std::string flags =
      "generate --temperature 0 --max-new-tokens 40 --model " + SmolLm2() + " --prompt ";
  ProgramResult run = RunLwm(flags + "'What is the capital of France?' --chat");
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_EQ(run.out, "The capital of France is Paris.\n");
  run = RunLwm(flags + "'What is the capital of France?' --chat --system 'Answer in French.'");
  EXPECT_EQ(run.exit_code, 0) << run.err;
  EXPECT_NE(run.out.find("France"), std::string::npos) << run.out;
  EXPECT_EQ(run.out.find("The capital"), std::string::npos) << run.out;
}

}  // namespace
}  // namespace lwm
