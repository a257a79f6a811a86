#pragma once

#include <string>

#include "lwm/base/json.h"

namespace lwm::data {

// The key under which a line holds a conversation, "" when it is none: "chat" on lines without
// "fields"; "messages" on those that also lack "text", where no fields are given for all lines.
std::string ConversationKey(const Json& object, bool has_default_fields);

// For a line that is no conversation where no fields are given: throws Error(kCorruptData) when it
// has neither "fields" nor "text", with its keys and how to have them read; lines in the forms of
// Alpaca and ShareGPT are told by name.
void RequireKnownForm(const Json& object, const std::string& where);

}  // namespace lwm::data
