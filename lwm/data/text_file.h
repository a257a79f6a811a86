#pragma once

#include <filesystem>
#include <memory>
#include <string>
#include <string_view>

#include "lwm/base/file.h"
#include "lwm/data/content_kind.h"

namespace lwm::data {

// The beginning of a file's text, for judging it without reading the rest.
struct TextHead {
  ContentKind kind;       // of the text; of what it is instead if that is no text
  std::string text = {};  // UTF-8 without byte order mark, about kContentHeadBytes; "" if no text
  bool is_whole = false;  // `text` is all of it
};

// Unpacks and converts as TextFile does. Throws Error(kNotFound) if the file cannot be read.
TextHead ReadTextHead(const std::filesystem::path& path);

// A file's text as UTF-8 without byte order mark. Plain files are mapped. Of gzip files (all
// members), UTF-16 and UTF-32 (by their byte order mark) the UTF-8 is put into a temporary file
// without a name (in TMPDIR, else /tmp) and mapped from there, so memory stays the system's to
// reclaim. Judged by its beginning; RequireUtf8 checks all. Threads: const methods from any.
class TextFile {
 public:
  // Throws Error(kNotFound) if it cannot be read, Error(kCorruptData) that says what it is if it is
  // no text, or where a packed file is truncated or damaged, Error(kResourceExhausted) when TMPDIR
  // is full.
  explicit TextFile(const std::filesystem::path& path);

  std::string_view text() const { return text_; }
  const std::filesystem::path& path() const { return path_; }

  // Throws Error(kCorruptData) naming the first byte that is no UTF-8. Cost: one pass, 1 GB/s.
  void RequireUtf8() const;

 private:
  std::filesystem::path path_;
  std::unique_ptr<MappedFile> mapped_;
  std::string_view text_;
};

// The whole text of a file or pipe, unpacked and converted as TextFile does and checked to its end.
// Throws as TextFile and RequireUtf8 do.
std::string ReadText(const std::filesystem::path& path);

// The same of bytes that stand in memory already; `where` names them in errors.
std::string DecodeText(std::string bytes, const std::string& where);

}  // namespace lwm::data
