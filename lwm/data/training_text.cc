#include "lwm/data/training_text.h"

#include <algorithm>

#include "lwm/data/utf8.h"
#include "lwm/data/vision_field.h"

namespace lwm::data {
namespace {

// The largest prefix of at most `limit` bytes that does not end inside a character.
size_t CutBetweenCharacters(std::string_view text, size_t limit) {
  if (text.size() <= limit) return text.size();
  for (size_t tail = 1; tail <= 3; ++tail)
    if (IsUtf8Beginning(text.substr(limit - tail, tail))) return limit - tail;
  return limit;
}

}  // namespace

TrainingText::TrainingText(const std::vector<std::string>& inputs)
    : files_(FindDocuments(inputs).files) {}

bool TrainingText::NextLine(std::string& line) {
  while (true) {
    while (chunk_.empty())
      if (!NextChunk()) return false;
    const size_t end = std::min(chunk_.find('\n'), chunk_.size());
    const size_t cut = CutBetweenCharacters(chunk_.substr(0, end), kMaxLineBytes);
    line = chunk_.substr(0, cut);
    chunk_.remove_prefix(std::min(cut + (cut == end), chunk_.size()));
    if (!line.empty() && line.back() == '\r') line.pop_back();
    if (line.empty()) continue;
    ++lines_;
    return true;
  }
}

bool TrainingText::NextChunk() {
  if (jsonl_ && next_jsonl_line_ < jsonl_->lines()) {
    strings_.clear();
    const int64_t index = next_jsonl_line_++;
    if (!jsonl_->is_blank(index)) AppendStrings(jsonl_->Parse(index));
    chunk_ = strings_;
    return true;
  }
  jsonl_.reset();
  text_.reset();
  if (next_file_ == files_.size()) return false;
  const DocumentFile& file = files_[next_file_++];
  if (file.is_jsonl) {
    jsonl_ = std::make_unique<JsonlFile>(file.path);
    next_jsonl_line_ = 0;
  } else {
    text_ = std::make_unique<TextFile>(file.path);
    text_->RequireUtf8();
    chunk_ = text_->text();
  }
  return true;
}

// Anything that is not the text of a turn is left to those who read the conversation.
void TrainingText::AppendChat(const Json& turns) {
  const auto append = [&](const Json& text) {
    if (text.is_string()) strings_ += text.get<std::string>() + "\n";
  };
  for (const Json& turn : turns) {
    if (!turn.is_object() || !turn.contains("content")) continue;
    const Json& content = turn.at("content");
    append(content);
    if (!content.is_array()) continue;
    for (const Json& part : content)
      append(part.is_object() && part.contains("text") ? part.at("text") : part);
  }
}

void TrainingText::AppendStrings(const Json& object) {
  for (const auto& [key, value] : object.items()) {
    if ((key == "chat" || key == "messages") && value.is_array()) AppendChat(value);
    if (key != "fields" && !IsVisionField(key) && value.is_string())
      strings_ += value.get<std::string>() + "\n";
  }
}

}  // namespace lwm::data
