#include "lwm/data/documents.h"

#include <glob.h>

#include <algorithm>
#include <cctype>
#include <cstring>
#include <map>
#include <set>
#include <span>

#include "lwm/base/count_of.h"
#include "lwm/base/error.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

using Form = ContentKind::Form;

std::string Lower(std::string text) {
  for (char& c : text) c = static_cast<char>(std::tolower(static_cast<unsigned char>(c)));
  return text;
}

// In lower case; for "a.txt.gz" it is ".txt", or ".txt.gz" with_packing.
std::string SuffixOf(const fs::path& path, bool with_packing) {
  const std::string last = Lower(path.extension().string());
  if (last != ".gz") return last;
  return Lower(path.stem().extension().string()) + (with_packing ? last : "");
}

bool HasTextSuffix(const fs::path& path) {
  const std::string suffix = SuffixOf(path, false);
  for (const char* known : {".txt", ".text", ".md", ".jsonl", ".ndjson", ".json"})
    if (suffix == known) return true;
  return false;
}

// The kind of a data file, by its content, and by its suffix where that says more.
struct Verdict {
  enum class Kind { kText, kJsonl, kEmpty, kRefused } kind;
  std::string name = {};  // kRefused: "a PDF document"; kText: what its text is, if that is markup
};
using Kind = Verdict::Kind;

Verdict JudgeJson(JsonForm form, const TextHead& head) {
  if (form == JsonForm::kLines || form == JsonForm::kArray) return {Kind::kJsonl};
  if (form == JsonForm::kOneObject) return {Kind::kRefused, "one JSON object"};
  const size_t first = head.text.find_first_not_of(" \t\r\n");
  if (first != head.text.npos && (head.text[first] == '[' || head.text[first] == '{'))
    return {Kind::kJsonl};  // Parse says what is wrong with it
  return {Kind::kRefused, "no JSON, as its name would have it"};
}

bool IsBlank(std::string_view text) {
  return text.find_first_not_of(" \t\r\n\f") == std::string_view::npos;
}

Verdict Judge(const fs::path& path) {
  const TextHead head = ReadTextHead(path);
  if (head.kind.form == Form::kOther || head.kind.form == Form::kGzip)
    return {Kind::kRefused, head.kind.name};
  // The whole file is opened, since the head of a damaged gzip file may be empty.
  if (IsBlank(head.text) && IsBlank(TextFile(path).text())) return {Kind::kEmpty};
  const std::string suffix = SuffixOf(path, false);
  if (suffix == ".jsonl" || suffix == ".ndjson") return {Kind::kJsonl};
  if (suffix == ".csv" || suffix == ".tsv") return {Kind::kRefused, "a table (CSV)"};
  const JsonForm json = RecognizeJson(head.text, head.is_whole);
  if (suffix == ".json") return JudgeJson(json, head);
  if (json == JsonForm::kLines || json == JsonForm::kArray) return {Kind::kJsonl};
  return {Kind::kText, MarkupName(head.text)};
}

std::vector<fs::path> FilesOfFolder(const fs::path& folder) {
  std::vector<fs::path> files;
  std::error_code error;
  fs::recursive_directory_iterator entry(folder, error);
  for (; !error && entry != fs::recursive_directory_iterator(); entry.increment(error)) {
    std::error_code ignored;
    const bool is_hidden = entry->path().filename().string().starts_with('.');
    if (is_hidden) entry.disable_recursion_pending();
    if (!is_hidden && entry->is_regular_file(ignored)) files.push_back(entry->path());
  }
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !error, "cannot read the folder ", folder.string(), ": ",
                 error.message());
  std::sort(files.begin(), files.end());
  return files;
}

std::vector<fs::path> FilesOfGlob(const std::string& pattern) {
  glob_t found{};
  const int result = glob(pattern.c_str(), 0, nullptr, &found);
  std::vector<fs::path> files;
  std::error_code ignored;
  for (size_t i = 0; result == 0 && i < found.gl_pathc; ++i)
    if (fs::is_regular_file(found.gl_pathv[i], ignored)) files.emplace_back(found.gl_pathv[i]);
  globfree(&found);
  return files;
}

// Reads the patterns one after the other.
class Finder {
 public:
  void Add(const std::string& pattern) {
    std::error_code ignored;
    const size_t before = seen_;
    left_out_.clear();
    if (fs::is_directory(pattern, ignored))
      AddFolder(pattern);
    else if (fs::exists(pattern, ignored))
      AddNamed(pattern);
    else
      for (const fs::path& file : FilesOfGlob(pattern)) AddNamed(file);
    const std::string note = NoteOf(pattern);
    LWM_REQUIRE_AS(ErrorCode::kNotFound, seen_ > before, "no text or JSONL file matches ", pattern,
                   fs::is_directory(pattern, ignored)
                       ? " (a folder; want *.txt, *.md, *.jsonl or *.json in it)"
                       : "",
                   note.empty() ? "" : "; " + note);
    if (!note.empty()) found_.notes.push_back(note);
  }

  Documents Take() {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, !found_.files.empty(), first_empty_, " is empty",
                   seen_ > 1 ? Cat(", and so are all ", seen_, " files") : "",
                   ": there is no text to read");
    return std::move(found_);
  }

 private:
  void AddFolder(const fs::path& folder) {
    for (const fs::path& file : FilesOfFolder(folder)) {
      if (!HasTextSuffix(file)) {
        LeaveOut(file, "");
        continue;
      }
      const Verdict verdict = Judge(file);
      if (verdict.kind == Kind::kRefused)
        LeaveOut(file, verdict.name);
      else
        AddJudged(file, verdict);
    }
  }

  void AddNamed(const fs::path& file) {
    const Verdict verdict = Judge(file);
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, verdict.kind != Kind::kRefused, file.string(), ": is ",
                   verdict.name, "; want text, JSON lines or a JSON array of objects");
    AddJudged(file, verdict);
  }

  void AddJudged(const fs::path& file, const Verdict& verdict) {
    ++seen_;
    if (verdict.kind == Kind::kEmpty) {
      if (first_empty_.empty()) first_empty_ = file.string();
      return LeaveOut(file, "empty");
    }
    if (!unique_.insert(fs::weakly_canonical(file)).second) return;
    if (!verdict.name.empty())
      found_.notes.push_back(
          Cat(file.string(), " is ", verdict.name, ": its tags are read as text"));
    found_.files.push_back({file, verdict.kind == Kind::kJsonl});
  }

  void LeaveOut(const fs::path& file, const std::string& reason) {
    std::string label = SuffixOf(file, true);
    if (label.empty()) label = "without suffix";
    if (!reason.empty()) label += " (" + reason + ")";
    ++left_out_[label];
  }

  std::string NoteOf(const std::string& pattern) const {
    int64_t count = 0;
    std::string list;
    for (const auto& [label, files] : left_out_) {
      count += files;
      list += Cat(list.empty() ? "" : ", ", files, " ", label);
    }
    if (count == 0) return "";
    return Cat(CountOf(count, "file"), " left out of ", pattern, ": ", list);
  }

  Documents found_;
  std::set<fs::path> unique_;
  std::map<std::string, int64_t> left_out_;  // of the pattern at hand: label, files
  size_t seen_ = 0;                          // text, JSON or empty, repeated ones too
  std::string first_empty_;
};

}  // namespace

bool HoldsJsonl(const fs::path& path) { return Judge(path).kind == Kind::kJsonl; }

Documents FindDocuments(const std::vector<std::string>& patterns) {
  if (patterns.empty()) return {};
  Finder finder;
  for (const std::string& pattern : patterns) finder.Add(pattern);
  return finder.Take();
}

namespace {

// An array of objects, or empty; in a .json file any array.
bool IsArray(std::string_view text, const fs::path& path) {
  const size_t first = text.find_first_not_of(" \t\r\n");
  if (first == text.npos || text[first] != '[') return false;
  return RecognizeJson(text.substr(first, kContentHeadBytes), false) == JsonForm::kArray ||
         SuffixOf(path, false) == ".json";
}

}  // namespace

JsonlFile::JsonlFile(const fs::path& path) : file_(path), is_array_(IsArray(file_.text(), path)) {
  is_array_ ? IndexElements() : IndexLines();
}

void JsonlFile::IndexLines() {
  const std::string_view text = file_.text();
  constexpr size_t kPieceBytes = 1 << 20;  // hashed while they are in the cache
  StreamHash hash;
  size_t hashed = 0;
  for (size_t at = 0; at < text.size();) {
    start_n_.push_back(at);
    at = std::min(text.find('\n', at), text.size() - 1) + 1;
    if (at - hashed < kPieceBytes && at < text.size()) continue;
    hash.Add(std::as_bytes(std::span(text.substr(hashed, at - hashed))));
    hashed = at;
  }
  start_n_.push_back(text.size());
  hash_ = hash.Hex();
}

// Finds the commas between elements by brackets and quotes alone; Parse checks that an element is
// an object.
void JsonlFile::IndexElements() {
  const std::string_view text = file_.text();
  hash_ = HashHex(std::as_bytes(std::span(text)));
  const size_t open = text.find('[');
  start_n_.push_back(open + 1);
  int64_t depth = 0;
  for (size_t at = open; at < text.size(); ++at) {
    const char c = text[at];
    if (c == '"') {
      for (++at; at < text.size() && text[at] != '"'; ++at) at += text[at] == '\\';
    } else if (c == '[' || c == '{') {
      ++depth;
    } else if ((c == ']' || c == '}') && --depth == 0) {
      const bool is_last = text.find_first_not_of(" \t\r\n", at + 1) == text.npos;
      LWM_REQUIRE_AS(ErrorCode::kCorruptData, c == ']' && is_last, where(lines()),
                     ": the JSON array ends there, but the file goes on");
      start_n_.push_back(at + 1);
      return;
    } else if (c == ',' && depth == 1) {
      start_n_.push_back(at + 1);
    }
  }
  throw Error(ErrorCode::kCorruptData,
              Cat(where(lines()), ": the JSON array has no end; the file is truncated"));
}

std::string_view JsonlFile::line(int64_t index) const {
  LWM_CHECK(index >= 0 && index < lines(), "line ", index, " of ", lines());
  const size_t begin = start_n_[static_cast<size_t>(index)];
  const size_t end = start_n_[static_cast<size_t>(index) + 1];
  std::string_view line = file_.text().substr(begin, end - begin);
  if (is_array_) line.remove_suffix(1);  // the comma or bracket
  while (!line.empty() && (line.back() == '\n' || line.back() == '\r')) line.remove_suffix(1);
  return line;
}

bool JsonlFile::is_blank(int64_t index) const { return IsBlank(line(index)); }

std::string JsonlFile::where(int64_t index) const {
  return Cat(file_.path().string(), is_array_ ? " entry " : ":", index + 1);
}

Json JsonlFile::Parse(int64_t index) const {
  Json object = ParseJson(line(index), where(index));
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, object.is_object(), where(index),
                 ": want a JSON object, got ", object.type_name());
  return object;
}

}  // namespace lwm::data
