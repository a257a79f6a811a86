#pragma once

#include <cstdint>
#include <filesystem>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/data/text_file.h"

namespace lwm::data {

// One input file: text (the whole file is one document) or JSONL (every line is one, or every
// element of an array).
struct DocumentFile {
  std::filesystem::path path;
  bool is_jsonl = false;
};

struct Documents {
  std::vector<DocumentFile> files;
  // Messages for the user, a line each: files that were left out, by suffix and count.
  std::vector<std::string> notes;
};

// The files that `patterns` name, in the order of the patterns, sorted within each, none twice. A
// pattern is a file, a folder or a glob ("books/*.txt", "a?/[0-9]*"). Of a folder, at any depth,
// the files are taken that end in .txt, .text, .md, .jsonl, .ndjson or .json (upper or lower case,
// with .gz behind it or not) and hold text or JSON; the others are left out and noted; names that
// begin with a dot are passed over. What a file is, its content says (TextFile, RecognizeJson);
// files without text (empty, white space) are left out and noted. Throws Error(kNotFound) naming a
// pattern that matches nothing, Error(kCorruptData) naming a file that was named itself (or by a
// glob) and is neither text nor JSON, and when no file of all holds any text.
Documents FindDocuments(const std::vector<std::string>& patterns);

// Whether a file's content (and suffix) is JSON lines or an array of objects. Throws
// Error(kNotFound) if it cannot be read.
bool HoldsJsonl(const std::filesystem::path& path);

// A JSONL file, or a JSON array of objects, as lines: a TextFile with an index of its lines or
// elements. Lines may end in \r\n; the last may lack its end.
// Cost: one pass over the file, 8 B of memory per line. Threads: const methods from any.
class JsonlFile {
 public:
  // Throws as TextFile does, and Error(kCorruptData) when an array is cut.
  explicit JsonlFile(const std::filesystem::path& path);

  const std::string& hash() const { return hash_; }  // HashHex of the text, unpacked

  int64_t lines() const { return static_cast<int64_t>(start_n_.size()) - 1; }
  std::string_view line(int64_t index) const;  // without its end; index from 0
  bool is_blank(int64_t index) const;
  std::string where(int64_t index) const;  // "file.jsonl:17", "file.json entry 17", from 1

  // The object on a line. Throws Error(kCorruptData) naming file, line and what is wrong.
  Json Parse(int64_t index) const;

 private:
  void IndexLines();
  void IndexElements();

  TextFile file_;
  bool is_array_ = false;
  std::string hash_;
  std::vector<uint64_t> start_n_;  // of each line or element, and the end of the last
};

}  // namespace lwm::data
