// Against Hugging Face transformers; tests/golden/chat_templates/make.py wrote the texts.
#include "lwm/jinja/template.h"

#include <gtest/gtest.h>

#include <filesystem>
#include <optional>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/jinja/json_value.h"
#include "lwm/testing/golden_folder.h"

namespace lwm::jinja {
namespace {

std::filesystem::path Folder() { return testing_support::GoldenFolder("chat_templates"); }

Variables VariablesOf(const Json& object) {
  Variables variables;
  for (const auto& [name, value] : object.items())
    variables.emplace_back(name, ValueOf(value, /*foreign=*/true));
  return variables;
}

// The text, or nothing where the template is refused with an Error of the expected codes.
std::optional<std::string> Rendered(const std::string& source, const Variables& variables,
                                    int64_t now = 0) {
  try {
    return Template(source, "test").Render(variables, {.now = now}).bytes();
  } catch (const Error& error) {
    EXPECT_NE(error.code(), ErrorCode::kInternal) << error.what();
    EXPECT_TRUE(std::string(error.what()).starts_with("test:")) << error.what();
    return std::nullopt;
  }
}

std::optional<std::string> Wanted(const Json& text) {
  return text.is_null() ? std::nullopt : std::optional(text.get<std::string>());
}

TEST(TemplateTest, PublicTemplatesRenderEveryConversationAsTransformersDoes) {
  const Json golden = ReadJsonFile(Folder() / "expected.json");
  const Json conversations = ReadJsonFile(Folder() / "conversations.json");
  int compared = 0;
  for (const auto& [name, texts] : golden.at("texts").items()) {
    const std::string source = ReadFile(Folder() / "templates" / (name + ".jinja"));
    for (const auto& [conversation, wanted] : texts.items())
      for (const bool prompt : {false, true}) {
        SCOPED_TRACE(name + ", " + conversation + (prompt ? ", prompt" : ""));
        Variables variables = VariablesOf(golden.at("special"));
        variables.emplace_back("messages", ValueOf(conversations.at(conversation), true));
        variables.emplace_back("tools", conversation == "tool_call"
                                            ? ValueOf(golden.at("tools"), true)
                                            : Value::OfNone());
        variables.emplace_back("documents", Value::OfNone());
        variables.emplace_back("add_generation_prompt", Value::Of(prompt));
        EXPECT_EQ(Rendered(source, variables, golden.at("now").get<int64_t>()),
                  Wanted(wanted.at(prompt ? "prompt" : "plain")));
        ++compared;
      }
  }
  EXPECT_GE(compared, 18 * 20);
}

TEST(TemplateTest, EveryConstructRendersAsInJinja) {
  const Json golden = ReadJsonFile(Folder() / "snippets.json");
  Variables variables = VariablesOf(golden.at("variables"));
  const Json messages = {{{"role", "user"}, {"content", "hi"}}};
  variables.emplace_back("messages", ValueOf(messages, true));
  variables.emplace_back("tools", Value::OfNone());
  variables.emplace_back("add_generation_prompt", Value::Of(false));
  const int64_t now = ReadJsonFile(Folder() / "expected.json").at("now").get<int64_t>();
  for (const Json& snippet : golden.at("snippets")) {
    const auto source = snippet.at("template").get<std::string>();
    EXPECT_EQ(Rendered(source, variables, now), Wanted(snippet.at("text"))) << source;
  }
}

}  // namespace
}  // namespace lwm::jinja
