#pragma once

#include <cstdint>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/data/multimodal_sequence.h"
#include "lwm/data/tokenizer.h"

namespace lwm::data {

// The form of a prompt: here is decided where BOS stands, which names become special tokens, which
// template a chat has and where media go. Generation, scoring and evaluation ask these functions;
// BOS follows Tokenizer::leading_bos, as the rows of training do.

// Special tokens by their names, such as <|im_start|>, in a text.
enum class SpecialNames { kAreText, kAreTokens };

// BOS, where the tokenizer begins texts with it.
MultimodalSequence BeginPrompt(const Tokenizer& tokenizer);

// BOS, the text, and EOS where the tokenizer ends texts with it.
std::vector<int32_t> EncodePrompt(const Tokenizer& tokenizer, const std::string& text,
                                  SpecialNames names = SpecialNames::kAreText);

// One question to a chat model.
struct ChatQuestion {
  std::string system, user;   // no system message when it is empty
  std::string template_file;  // Jinja; empty: the model's own template
  std::string model;          // names it in messages
};

// [system,] user and the beginning of the answer, by the template. Throws Error(kInvalidArgument)
// when the model has none.
std::vector<int32_t> EncodeChatQuestion(const Tokenizer& tokenizer, const ChatQuestion& question);

// The form of training examples, for the model to continue with a frame:
//   BOS text <vision> [codes eof] [codes eof] ...
MultimodalSequence FramePrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                               const std::string& text, std::span<const int32_t> codes = {});

// The same for a text about frames:   BOS <vision> codes [eof codes ...] eov </vision>
MultimodalSequence CaptionPrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                                 std::span<const int32_t> codes);

// The published chat models' form of a request to draw: "... USER: Generate {what} of {prompt}
// ASSISTANT:". what: "an image" or "a video".
std::string DrawingQuestion(const std::string& what, const std::string& prompt);

// BOS, then the text with the media where it says {image}, or before it when it does not.
inline constexpr std::string_view kMediaMark = "{image}";
MultimodalSequence MediaPrompt(const Tokenizer& tokenizer, const FrameLayout& layout,
                               const std::string& text, SpecialNames names,
                               const std::vector<std::vector<int32_t>>& media);

}  // namespace lwm::data
