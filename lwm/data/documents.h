#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/base/json.h"

namespace lwm::data {

// One input file: text (the whole file is one document) or JSONL (every line is one).
struct DocumentFile {
  std::filesystem::path path;
  bool is_jsonl = false;
};

// The files that `patterns` name, in the order of the patterns, sorted within each, none twice. A
// pattern is a file, a folder (its .txt, .md and .jsonl files, at any depth) or a glob
// ("books/*.txt", "a?/[0-9]*"). Names that end in .jsonl or .ndjson are JSONL. Throws
// Error(kNotFound) naming a pattern that matches nothing.
std::vector<DocumentFile> FindDocuments(const std::vector<std::string>& patterns);

// A mapped JSONL file with an index of its lines. Lines may end in \r\n; the last may lack its end.
// Cost: one pass over the file, 8 B of memory per line. Threads: const methods from any.
class JsonlFile {
 public:
  explicit JsonlFile(const std::filesystem::path& path);

  int64_t lines() const { return static_cast<int64_t>(start_n_.size()) - 1; }
  std::string_view line(int64_t index) const;  // without its end; index from 0
  bool is_blank(int64_t index) const;
  std::string where(int64_t index) const;  // "file.jsonl:17", lines counted from 1

  // The object on a line. Throws Error(kCorruptData) naming file, line and what is wrong.
  Json Parse(int64_t index) const;

 private:
  MappedFile file_;
  std::vector<uint64_t> start_n_;  // of each line, and the file's size
};

}  // namespace lwm::data
