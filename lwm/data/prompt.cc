#include "lwm/data/prompt.h"

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/data/chat_template.h"
#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {
namespace {

std::vector<int32_t> Encode(const Tokenizer& tokenizer, const std::string& text,
                            SpecialNames names) {
  return names == SpecialNames::kAreTokens ? EncodeWithSpecialTokens(tokenizer, text)
                                           : tokenizer.Encode(text);
}

jinja::Template OpenChatTemplate(const Tokenizer& tokenizer, const ChatQuestion& question) {
  if (!question.template_file.empty())
    return {ReadFile(question.template_file), question.template_file};
  const std::string own = tokenizer.settings().chat_template();
  LWM_REQUIRE(!own.empty(), question.model,
              " has no chat template (in tokenizer_config.json, in chat_template.jinja, or in the "
              "GGUF file): give one with --template FILE, or leave out --chat to have the prompt "
              "continued as a text");
  return {own, question.model + " (chat template)"};
}

}  // namespace

MultimodalSequence BeginPrompt(const Tokenizer& tokenizer) {
  MultimodalSequence sequence;
  if (const auto bos = tokenizer.leading_bos()) sequence.Add(*bos, false);
  return sequence;
}

std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer, const std::string& text,
                                  SpecialNames names) {
  std::vector<int32_t> ids = Encode(tokenizer, text, names);
  if (const auto bos = tokenizer.leading_bos()) ids.insert(ids.begin(), *bos);
  if (tokenizer.ends_with_eos()) ids.push_back(tokenizer.eos_id());
  return ids;
}

std::vector<int32_t> EncodeChatQuestion(const Tokenizer& tokenizer, const ChatQuestion& question) {
  std::vector<ChatMessage> messages;
  if (!question.system.empty()) messages.push_back({"system", question.system});
  messages.push_back({"user", question.user});
  return EncodeChat(tokenizer, OpenChatTemplate(tokenizer, question), messages);
}

std::string DrawingQuestion(const std::string& what, const std::string& prompt) {
  return Cat("You are a helpful assistant. USER: Generate ", what, " of ", prompt, " ASSISTANT:");
}

MultimodalSequence FramePrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                               const std::string& text, std::span<const int32_t> codes) {
  MultimodalSequence sequence = BeginPrompt(tokenizer);
  sequence.AddText(tokenizer.Encode(text));
  AddOpenVideo(layout, codes, sequence);
  return sequence;
}

MultimodalSequence CaptionPrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                                 std::span<const int32_t> codes) {
  MultimodalSequence sequence = BeginPrompt(tokenizer);
  AddVideo(layout, codes, sequence);
  return sequence;
}

MultimodalSequence MediaPrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                               const std::string& text, SpecialNames names,
                               const std::vector<std::vector<int32_t>>& media) {
  const size_t mark = text.find(kMediaMark);
  const bool marked = mark != std::string::npos;
  MultimodalSequence sequence = BeginPrompt(tokenizer);
  // Encoded apart, as the fields of a training example are.
  sequence.AddText(Encode(tokenizer, marked ? text.substr(0, mark) : "", names));
  for (const std::vector<int32_t>& codes : media) AddVideo(layout, codes, sequence);
  sequence.AddText(Encode(tokenizer, marked ? text.substr(mark + kMediaMark.size()) : text, names));
  return sequence;
}

}  // namespace lwm::data
