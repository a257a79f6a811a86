#include "lwm/data/documents.h"

#include <glob.h>

#include <algorithm>
#include <cstring>
#include <set>

#include "lwm/base/error.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

bool IsJsonl(const fs::path& path) {
  return path.extension() == ".jsonl" || path.extension() == ".ndjson";
}

bool IsDocument(const fs::path& path) {
  return IsJsonl(path) || path.extension() == ".txt" || path.extension() == ".md";
}

std::vector<fs::path> FilesOfFolder(const fs::path& folder) {
  std::vector<fs::path> files;
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file() && IsDocument(entry.path())) files.push_back(entry.path());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> FilesOfGlob(const std::string& pattern) {
  glob_t found{};
  const int result = glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<fs::path> files;
  for (size_t i = 0; result == 0 && i < found.gl_pathc; ++i)
    if (fs::is_regular_file(found.gl_pathv[i])) files.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  return files;
}

}  // namespace

std::vector<DocumentFile> FindDocuments(const std::vector<std::string>& patterns) {
  std::vector<DocumentFile> documents;
  std::set<fs::path> seen;
  for (const std::string& pattern : patterns) {
    std::vector<fs::path> files;
    if (fs::is_directory(pattern))
      files = FilesOfFolder(pattern);
    else if (fs::exists(pattern))
      files = {pattern};
    else
      files = FilesOfGlob(pattern);
    LWM_REQUIRE_AS(
        ErrorCode::kNotFound, !files.empty(), "no text or JSONL file matches ", pattern,
        fs::is_directory(pattern) ? " (a folder; want *.txt, *.md or *.jsonl in it)" : "");
    for (const fs::path& file : files)
      if (seen.insert(fs::weakly_canonical(file)).second)
        documents.push_back({file, IsJsonl(file)});
  }
  return documents;
}

JsonlFile::JsonlFile(const fs::path& path) : file_(path) {
  const auto* begin = reinterpret_cast<const char*>(file_.bytes().data());
  const size_t size = file_.bytes().size();
  for (size_t at = 0; at < size;) {
    start_n_.push_back(at);
    const void* end = std::memchr(begin + at, '\n', size - at);
    at = end ? static_cast<size_t>(static_cast<const char*>(end) - begin) + 1 : size;
  }
  start_n_.push_back(size);
}

std::string_view JsonlFile::line(int64_t index) const {
  LWM_CHECK(index >= 0 && index < lines(), "line ", index, " of ", lines());
  const size_t begin = start_n_[static_cast<size_t>(index)];
  const size_t end = start_n_[static_cast<size_t>(index) + 1];
  std::string_view line(reinterpret_cast<const char*>(file_.bytes().data()) + begin, end - begin);
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

bool JsonlFile::is_blank(int64_t index) const {
  return line(index).find_first_not_of(" \t") == std::string_view::npos;
}

std::string JsonlFile::where(int64_t index) const {
  return Cat(file_.path().string(), ":", index + 1);
}

Json JsonlFile::Parse(int64_t index) const {
  Json object = ParseJson(line(index), where(index));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, object.is_object(), where(index),
                 ": want a JSON object, got ", object.type_name());
  return object;
}

}  // namespace lwm::data
