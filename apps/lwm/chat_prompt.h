#pragma once

#include <CLI/CLI.hpp>
#include <cstdint>
#include <string>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/infer/generator.h"

namespace lwm::app {

// The flags of a prompt that is a user's turn of a conversation.
struct ChatFlags {
  bool chat = false;
  std::string system, template_file;
};
CLI::Option* AddChatFlags(CLI::App& command, ChatFlags& flags);  // --chat

// The ids of [system,] prompt and the beginning of the answer, by the template of --template or
// the model's own. Throws Error(kInvalidArgument) naming `model` when it has none.
std::vector<int32_t> EncodeChatPrompt(const data::Tokenizer& tokenizer, const ChatFlags& flags,
                                      const std::string& model, const std::string& prompt);

// Explains an answer without text; "" unless an end-of-text token ended it.
std::string EmptyAnswerReason(const data::Tokenizer& tokenizer, const ChatFlags& flags,
                              const infer::GenerateResult& result);

}  // namespace lwm::app
