#pragma once

#include <cstdint>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "lwm/data/documents.h"

namespace lwm::data {

// The text that a tokenizer is trained on, line by line: the lines of text files and, of JSONL
// files, the lines of every string value except "fields" and vision fields, and of the texts of a
// "chat". One file is open at a time.
class TrainingText {
 public:
  static constexpr size_t kMaxLineBytes = 1 << 14;  // longer ones are cut between characters

  // Throws as FindDocuments does.
  explicit TrainingText(const std::vector<std::string>& inputs);

  // False at the end. Skips empty lines. Throws Error(kCorruptData) naming a bad JSONL line, and as
  // TextFile does.
  bool NextLine(std::string& line);

  int64_t lines() const { return lines_; }  // returned so far

 private:
  bool NextChunk();
  void AppendStrings(const Json& object);
  void AppendChat(const Json& turns);

  std::vector<DocumentFile> files_;
  size_t next_file_ = 0;
  std::unique_ptr<JsonlFile> jsonl_;
  int64_t next_jsonl_line_ = 0;
  std::unique_ptr<TextFile> text_;
  std::string strings_;     // of the JSONL line being read
  std::string_view chunk_;  // the part of strings_ or text_ not returned yet
  int64_t lines_ = 0;
};

}  // namespace lwm::data
