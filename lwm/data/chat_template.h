#pragma once

#include <cstdint>
#include <string>
#include <vector>

#include "lwm/data/tokenizer.h"
#include "lwm/jinja/template.h"

namespace lwm::data {

// A turn of a conversation; every template knows the roles "user" and "assistant", most "system".
struct ChatMessage {
  std::string role, content;
};

// The conversation as a model reads it before it answers: rendered by its template with
// add_generation_prompt, names of special tokens that the template writes as these tokens; in
// messages they stay text. BOS comes first where the tokenizer begins texts with it, never twice.
// Throws as Template::Render does.
std::vector<int32_t> EncodeChat(const Tokenizer& tokenizer, const jinja::Template& chat_template,
                                const std::vector<ChatMessage>& messages);

}  // namespace lwm::data
