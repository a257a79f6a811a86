#include "chat_prompt.h"

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/chat_template.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::app {
namespace {

jinja::Template OpenChatTemplate(const data::Tokenizer& tokenizer, const ChatFlags& flags,
                                 const std::string& model) {
  if (!flags.template_file.empty()) return {ReadFile(flags.template_file), flags.template_file};
  const std::string own = tokenizer.settings().chat_template();
  LWM_REQUIRE(!own.empty(), model,
              " has no chat template (in tokenizer_config.json, in chat_template.jinja, or in the "
              "GGUF file): give one with --template FILE, or leave out --chat to have the prompt "
              "continued as a text");
  return {own, model + " (chat template)"};
}

std::string NameOf(const data::Tokenizer& tokenizer, int64_t id) {
  for (const auto& [name, special] : tokenizer.special_tokens())
    if (special == id) return name;
  return Cat("of id ", id);
}

}  // namespace

CLI::Option* AddChatFlags(CLI::App& command, ChatFlags& flags) {
  CLI::Option* chat = command.add_flag(
      "--chat", flags.chat,
      "the prompt is a user's question: put it into the model's own chat template");
  command.add_option("--system", flags.system, "with --chat: what the model is to be or to do")
      ->needs(chat);
  command
      .add_option("--template", flags.template_file,
                  "with --chat: file with a Jinja chat template instead of the model's own")
      ->needs(chat);
  return chat;
}

std::vector<int32_t> EncodeChatPrompt(const data::Tokenizer& tokenizer, const ChatFlags& flags,
                                      const std::string& model, const std::string& prompt) {
  std::vector<data::ChatMessage> messages;
  if (!flags.system.empty()) messages.push_back({"system", flags.system});
  messages.push_back({"user", prompt});
  return data::EncodeChat(tokenizer, OpenChatTemplate(tokenizer, flags, model), messages);
}

std::string EmptyAnswerReason(const data::Tokenizer& tokenizer, const ChatFlags& flags,
                              const infer::GenerateResult& result) {
  if (result.stop != infer::GenerateResult::Stop::kEndOfText || result.new_ids.empty()) return "";
  const bool is_chat_model = !tokenizer.settings().chat_template().empty();
  return Cat("empty answer: the model ended it at once with the end-of-text token ",
             NameOf(tokenizer, result.new_ids.back()),
             is_chat_model && !flags.chat ? "; it has a chat template, try --chat" : "");
}

}  // namespace lwm::app
