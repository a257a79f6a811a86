#include "lwm/data/jsonl_source.h"

#include <algorithm>
#include <cstdio>
#include <mutex>
#include <set>
#include <span>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/random.h"
#include "lwm/data/vision_field.h"

namespace lwm::data {
namespace {

constexpr double kMaxWeight = 1e6;

struct Lines {
  std::unique_ptr<JsonlFile> file;
  std::filesystem::path folder;
  std::vector<int64_t> line_of_unit;  // the lines that are not blank
  int64_t first_unit = 0;
};

class JsonlSource : public ExampleSource {
 public:
  JsonlSource(const std::vector<DocumentFile>& files, std::shared_ptr<const Tokenizer> tokenizer,
              const JsonlSourceOptions& options)
      : tokenizer_(std::move(tokenizer)), options_(options), name_(NameOfFiles(files)) {
    for (const DocumentFile& file : files) {
      Lines lines{std::make_unique<JsonlFile>(file.path), file.path.parent_path(), {}, units_};
      for (int64_t i = 0; i < lines.file->lines(); ++i)
        if (!lines.file->is_blank(i)) lines.line_of_unit.push_back(i);
      units_ += static_cast<int64_t>(lines.line_of_unit.size());
      hashes_ += lines.file->hash();
      files_.push_back(std::move(lines));
    }
    LWM_REQUIRE(units_ > 0, files[0].path.string(), ": no line to train on in ", files.size(),
                " JSONL files");
    if (options.line_weights) ReadWeights();
  }

  int64_t units() const override { return units_; }
  int64_t files() const override { return static_cast<int64_t>(files_.size()); }
  int64_t tokens() const override { return -1; }
  std::string fingerprint() const override { return HashHex(std::as_bytes(std::span(hashes_))); }
  std::string name() const override { return name_; }
  bool has_weights() const override { return !weight_n_.empty(); }
  double Weight(int64_t unit) const override {
    return weight_n_.empty() ? 1 : weight_n_[static_cast<size_t>(unit)];
  }
  int64_t skipped() const override {
    const std::lock_guard lock(skipped_mutex_);
    return static_cast<int64_t>(skipped_.size());
  }

  Example Read(int64_t unit, int64_t epoch) const override {
    try {
      LinePlace place;
      const Json object = Parse(unit, place);
      if (epoch != kHeldOut)
        place.draw_key = DeriveKey(DeriveKey(options_.seed, static_cast<uint64_t>(epoch)),
                                   static_cast<uint64_t>(unit));
      return BuildExample(object, place, *tokenizer_, options_.grammar);
    } catch (const Error& error) {
      if (!options_.skip_bad_lines || error.code() != ErrorCode::kCorruptData) throw;
      Skip(unit, error.what());
      return {};
    }
  }

  void EncodeMedia(int64_t part, int64_t parts,
                   const std::function<void(int64_t units)>& done) const override {
    constexpr int64_t kLinesAtOnce = 64;  // their frames share batches
    LWM_CHECK(options_.grammar.media, "no VQGAN to encode media with");
    for (int64_t begin = part; begin < units_; begin += kLinesAtOnce * parts) {
      const int64_t end = std::min(units_, begin + kLinesAtOnce * parts);
      std::vector<data::MediaRequest> requests;
      for (int64_t unit = begin; unit < end; unit += parts)
        VisitMedia(unit, [&](Json& value, const std::string& field, const LinePlace& place) {
          const auto of_value = MediaOf(value, field, place, options_.grammar);
          requests.insert(requests.end(), of_value.begin(), of_value.end());
        });
      const bool failed = options_.grammar.media->Fill(requests, [](int64_t) {}) > 0;
      for (int64_t unit = begin; unit < end; unit += parts) {
        if (failed)  // here the error names the line
          VisitMedia(unit, [&](Json& value, const std::string& field, const LinePlace& place) {
            VisionCodes(value, field, place, options_.grammar);
          });
        done(1);
      }
    }
  }

 private:
  Json Parse(int64_t unit, LinePlace& place) const {
    const auto after =
        std::upper_bound(files_.begin(), files_.end(), unit,
                         [](int64_t value, const Lines& l) { return value < l.first_unit; });
    const Lines& lines = *std::prev(after);
    place.index = lines.line_of_unit[static_cast<size_t>(unit - lines.first_unit)];
    place.where = lines.file->where(place.index);
    place.folder = lines.folder;
    return lines.file->Parse(place.index);
  }

  // visit(value, field, place) for the media of a line; a bad line is skipped if it may be.
  template <class Visit>
  void VisitMedia(int64_t unit, const Visit& visit) const {
    try {
      LinePlace place;
      Json object = Parse(unit, place);
      ForEachMedia(object,
                   [&](Json& value, const std::string& field) { visit(value, field, place); });
    } catch (const Error& error) {
      if (!options_.skip_bad_lines || error.code() != ErrorCode::kCorruptData) throw;
      Skip(unit, error.what());
    }
  }

  void ReadWeights() {
    for (int64_t unit = 0; unit < units_; ++unit) {
      try {
        LinePlace place;
        const Json object = Parse(unit, place);
        const auto weight = JsonGet<double>(object, "weight", place.where, 1.0);
        if (!(weight >= 0 && weight <= kMaxWeight))
          ThrowJsonField(place.where, "weight", Cat("is ", weight, ", want 0 to ", kMaxWeight));
        weight_n_.push_back(weight);
      } catch (const Error& error) {
        if (!options_.skip_bad_lines || error.code() != ErrorCode::kCorruptData) throw;
        Skip(unit, error.what());
        weight_n_.push_back(0);
      }
    }
  }

  void Skip(int64_t unit, const std::string& reason) const {
    const std::lock_guard lock(skipped_mutex_);
    if (skipped_.insert(unit).second && options_.warn)
      std::fprintf(stderr, "lwm: skipped %s\n", reason.c_str());
  }

  std::shared_ptr<const Tokenizer> tokenizer_;
  JsonlSourceOptions options_;
  std::string name_;
  std::vector<Lines> files_;
  std::string hashes_;  // of the files' texts, in order
  int64_t units_ = 0;
  std::vector<double> weight_n_;  // empty = 1 for all
  mutable std::mutex skipped_mutex_;
  mutable std::set<int64_t> skipped_;
};

}  // namespace

std::unique_ptr<ExampleSource> OpenJsonlSource(const std::vector<DocumentFile>& files,
                                               std::shared_ptr<const Tokenizer> tokenizer,
                                               const JsonlSourceOptions& options) {
  return std::make_unique<JsonlSource>(files, std::move(tokenizer), options);
}

}  // namespace lwm::data
