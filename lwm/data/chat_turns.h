#pragma once

#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/example_part.h"

namespace lwm::data {

// A conversation under the object's key `key`, "chat" or "messages" (OpenAI's form; both are read
// alike), a list of turns:
//   {"role": "system"}     the first turn at most; default "You are a helpful assistant."
//   {"role": "user"} and {"role": "assistant"} in turns, from a user's to an assistant's
// "content" is a text, or a list of parts: a text, {"type": "text", "text": ...},
// {"type": "image" or "video", "path": ...} with the options of VisionCodes, or with "codes", a
// flat list, instead of the path. An answer with "weight": 0 is given, not learned. Tool calls and
// "image_url" are refused; further keys of a turn ("name", "id") change nothing.
//
// In the published form: "SYSTEM USER: QUESTION ASSISTANT:", the answer, EOS, and for every further
// pair of turns "USER: QUESTION ASSISTANT:", the answer, EOS. A text before media in a question
// ends with a line feed. Answers with what they show, and their EOS, are learned; the rest is
// given. `object` must outlive the parts. Throws Error(kCorruptData) naming `where` and the turn.
std::vector<ExamplePart> ChatParts(const Json& object, const std::string& key,
                                   const std::string& where, const Tokenizer& tokenizer);

}  // namespace lwm::data
