#include "lwm/data/chat_template.h"

#include <utility>

#include "lwm/data/tokenizer_settings.h"

namespace lwm::data {
namespace {

using jinja::Text;
using jinja::Value;

// As transformers' apply_chat_template names them.
jinja::Variables VariablesOf(const TokenizerSettings& settings,
                             const std::vector<ChatMessage>& messages) {
  const auto own = [](const std::string& text) { return Value::Of(Text(text)); };
  std::vector<Value> list;
  for (const ChatMessage& message : messages) {
    const Value content = Value::Of(Text(message.content, /*foreign=*/true));
    list.push_back(Value::OfDict(
        {{own("role"), Value::Of(Text(message.role, true))}, {own("content"), content}}));
  }
  jinja::Variables variables = {{"messages", Value::OfList(std::move(list))},
                                {"tools", Value::OfNone()},
                                {"documents", Value::OfNone()},
                                {"add_generation_prompt", Value::Of(true)}};
  const std::pair<const char*, const std::string&> tokens[] = {{"bos_token", settings.bos_token},
                                                               {"eos_token", settings.eos_token},
                                                               {"unk_token", settings.unk_token},
                                                               {"pad_token", settings.pad_token}};
  for (const auto& [name, text] : tokens)
    if (!text.empty()) variables.emplace_back(name, own(text));
  return variables;
}

}  // namespace

std::vector<int32_t> EncodeChat(const Tokenizer& tokenizer, const jinja::Template& chat_template,
                                const std::vector<ChatMessage>& messages) {
  const Text text = chat_template.Render(VariablesOf(tokenizer.settings(), messages));
  std::vector<int32_t> ids = tokenizer.EncodeMarked(text.bytes(), text.foreign());
  const std::optional<int32_t> bos = tokenizer.leading_bos();
  if (bos && (ids.empty() || ids[0] != *bos)) ids.insert(ids.begin(), *bos);
  return ids;
}

}  // namespace lwm::data
