#include <algorithm>
#include <cstdio>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/data/example_source.h"

namespace lwm::data {
namespace {

struct Lines {
  std::unique_ptr<JsonlFile> file;
  std::vector<int64_t> line_of_unit;  // the lines that are not blank
  int64_t first_unit = 0;
};

class JsonlSource : public ExampleSource {
 public:
  JsonlSource(const std::vector<DocumentFile>& files, std::shared_ptr<const Tokenizer> tokenizer,
              const FieldGrammar& grammar, bool skip_bad_lines)
      : tokenizer_(std::move(tokenizer)), grammar_(grammar), skip_bad_lines_(skip_bad_lines) {
    for (const DocumentFile& file : files) {
      Lines lines{std::make_unique<JsonlFile>(file.path), {}, units_};
      for (int64_t i = 0; i < lines.file->lines(); ++i)
        if (!lines.file->is_blank(i)) lines.line_of_unit.push_back(i);
      units_ += static_cast<int64_t>(lines.line_of_unit.size());
      files_.push_back(std::move(lines));
    }
    LWM_REQUIRE(units_ > 0, files[0].path.string(), ": no line to train on in ", files.size(),
                " JSONL files");
  }

  int64_t units() const override { return units_; }
  int64_t files() const override { return static_cast<int64_t>(files_.size()); }
  int64_t tokens() const override { return -1; }

  Example Read(int64_t unit) const override {
    const auto after =
        std::upper_bound(files_.begin(), files_.end(), unit,
                         [](int64_t value, const Lines& l) { return value < l.first_unit; });
    const Lines& lines = *std::prev(after);
    const int64_t line = lines.line_of_unit[static_cast<size_t>(unit - lines.first_unit)];
    const std::string where = lines.file->where(line);
    if (!skip_bad_lines_)
      return BuildExample(lines.file->Parse(line), line, where, *tokenizer_, grammar_);
    try {
      return BuildExample(lines.file->Parse(line), line, where, *tokenizer_, grammar_);
    } catch (const Error& error) {
      if (error.code() != ErrorCode::kCorruptData) throw;
      std::fprintf(stderr, "lwm: skipped %s\n", error.what());
      return {};
    }
  }

 private:
  std::shared_ptr<const Tokenizer> tokenizer_;
  FieldGrammar grammar_;
  bool skip_bad_lines_;
  std::vector<Lines> files_;
  int64_t units_ = 0;
};

}  // namespace

std::unique_ptr<ExampleSource> OpenJsonlSource(const std::vector<DocumentFile>& files,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               const FieldGrammar& grammar, bool skip_bad_lines) {
  return std::make_unique<JsonlSource>(files, std::move(tokenizer), grammar, skip_bad_lines);
}

}  // namespace lwm::data
