#include "lwm/data/example_source.h"

#include <algorithm>
#include <span>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/file.h"

namespace lwm::data {
namespace {

class JoinedSources : public ExampleSource {
 public:
  explicit JoinedSources(std::vector<std::unique_ptr<ExampleSource>> sources)
      : sources_(std::move(sources)) {
    for (const auto& source : sources_) {
      units_ += source->units();
      files_ += source->files();
      tokens_ = source->tokens() < 0 || tokens_ < 0 ? -1 : tokens_ + source->tokens();
    }
  }

  int64_t units() const override { return units_; }
  int64_t files() const override { return files_; }
  int64_t tokens() const override { return tokens_; }
  int64_t pieces() const override { return sources_[0]->pieces(); }  // text comes first
  std::string fingerprint() const override {
    std::string all;
    for (const auto& source : sources_) all += source->fingerprint();
    return HashHex(std::as_bytes(std::span(all)));
  }
  std::string name() const override {
    return Cat(sources_[0]->name(), " and ", sources_[1]->name());
  }
  Example Read(int64_t unit, int64_t epoch) const override {
    const ExampleSource& source = SourceOf(unit);
    return source.Read(unit, epoch);
  }
  bool has_weights() const override {
    return std::any_of(sources_.begin(), sources_.end(),
                       [](const auto& source) { return source->has_weights(); });
  }
  double Weight(int64_t unit) const override {
    const ExampleSource& source = SourceOf(unit);
    return source.Weight(unit);
  }
  int64_t skipped() const override {
    int64_t skipped = 0;
    for (const auto& source : sources_) skipped += source->skipped();
    return skipped;
  }
  void EncodeMedia(int64_t part, int64_t parts,
                   const std::function<void(int64_t units)>& done) const override {
    for (const auto& source : sources_) source->EncodeMedia(part, parts, done);
  }

 private:
  // Makes `unit` the number within its source.
  const ExampleSource& SourceOf(int64_t& unit) const {
    size_t s = 0;
    for (; unit >= sources_[s]->units(); ++s) unit -= sources_[s]->units();
    return *sources_[s];
  }

  std::vector<std::unique_ptr<ExampleSource>> sources_;
  int64_t units_ = 0, files_ = 0, tokens_ = 0;
};

}  // namespace

std::string NameOfFiles(const std::vector<DocumentFile>& files) {
  const std::string first = files[0].path.string();
  if (files.size() == 1) return first;
  return Cat(first, " and ", files.size() - 1, files.size() == 2 ? " other file" : " other files");
}

std::unique_ptr<ExampleSource> JoinSources(std::vector<std::unique_ptr<ExampleSource>> sources) {
  if (sources.size() == 1) return std::move(sources[0]);
  return std::make_unique<JoinedSources>(std::move(sources));
}

}  // namespace lwm::data
