#include "lwm/data/loader.h"

#include <algorithm>
#include <cmath>
#include <optional>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/prefetch.h"
#include "lwm/base/random.h"
#include "lwm/data/example_source.h"
#include "lwm/data/held_out_rows.h"
#include "lwm/data/jsonl_source.h"
#include "lwm/data/mixture.h"
#include "lwm/data/row_stream.h"
#include "lwm/data/survey.h"
#include "lwm/data/text_source.h"
#include "lwm/data/unit_order.h"

namespace lwm::data {
namespace {

constexpr int64_t kStateVersion = 1;
constexpr uint64_t kVisitDraws = uint64_t{1} << 32;  // a sub-stream of a source's seed

JsonlSourceOptions MakeJsonlOptions(const SourceConfig& source, const LoaderConfig& config,
                                    uint64_t seed) {
  JsonlSourceOptions options;
  FieldGrammar& grammar = options.grammar;
  grammar.fields = source.fields;
  grammar.order_by_visit = source.order_by_visit;
  grammar.drop_text = source.drop_text;
  grammar.prepend_text = source.prepend_text;
  grammar.max_frames = source.max_frames;
  grammar.tokens_per_frame = config.codes_per_frame;
  grammar.eof_code = static_cast<int32_t>(config.codebook_size);
  grammar.eov_code = grammar.eof_code + 1;
  grammar.whole_frames = true;
  if (config.media) UseMedia(grammar, config.media);
  options.skip_bad_lines = config.skip_bad_lines;
  options.warn = config.warn;
  options.line_weights = source.line_weights;
  options.seed = seed;
  return options;
}

std::shared_ptr<const ExampleSource> OpenSource(const std::vector<std::string>& paths,
                                                const SourceConfig& source,
                                                const LoaderConfig& config, uint64_t seed,
                                                const std::shared_ptr<const Tokenizer>& tokenizer,
                                                std::vector<std::string>& notes) {
  std::vector<DocumentFile> text, jsonl;
  const Documents found = FindDocuments(paths);
  notes.insert(notes.end(), found.notes.begin(), found.notes.end());
  for (const DocumentFile& file : found.files) (file.is_jsonl ? jsonl : text).push_back(file);
  std::vector<std::unique_ptr<ExampleSource>> parts;
  if (!text.empty())
    parts.push_back(OpenTextSource(text, *tokenizer,
                                   {.row_tokens = config.packing.row_tokens,
                                    .joined = config.packing.policy == PackingPolicy::kConcatenate,
                                    .min_document_tokens = source.min_document_tokens,
                                    .max_document_tokens = source.max_document_tokens,
                                    .cache = config.cache}));
  if (!jsonl.empty())
    parts.push_back(OpenJsonlSource(jsonl, tokenizer, MakeJsonlOptions(source, config, seed)));
  LWM_REQUIRE(!parts.empty(), "a data source has an empty list of paths");
  return JoinSources(std::move(parts));
}

int64_t HeldOutUnits(const LoaderConfig& config, int64_t units) {
  if (config.held_out_fraction == 0 || !config.held_out_paths.empty()) return 0;
  LWM_REQUIRE(units >= 2, "held_out_fraction ", config.held_out_fraction,
              " needs at least two units of data, but a source has one; give shorter rows, more ",
              "data or held_out_paths");
  const auto wanted =
      static_cast<int64_t>(std::llround(config.held_out_fraction * static_cast<double>(units)));
  return std::clamp<int64_t>(wanted, 1, units - 1);
}

void ValidateSource(const SourceConfig& source) {
  LWM_REQUIRE(std::isfinite(source.share) && source.share > 0, "a data source's share is ",
              source.share, "; want a positive number");
  LWM_REQUIRE(source.drop_text >= 0 && source.drop_text <= 1, "a data source's drop_text is ",
              source.drop_text, "; want 0 to 1");
}

void ValidateConfig(const LoaderConfig& config) {
  ValidatePacking(config.packing, 0);
  LWM_REQUIRE(!config.sources.empty(), "no data source is given");
  LWM_REQUIRE(config.held_out_fraction >= 0 && config.held_out_fraction < 1, "held_out_fraction ",
              config.held_out_fraction, " is out of range; want 0 up to, not including, 1");
  LWM_REQUIRE(config.prefetch_rows >= 0, "prefetch_rows ", config.prefetch_rows, " is negative");
  for (const SourceConfig& source : config.sources) ValidateSource(source);
}

std::vector<double> WeightsOf(const std::vector<SourceConfig>& sources) {
  std::vector<double> weights;
  for (const SourceConfig& source : sources) weights.push_back(source.share);
  return weights;
}

// Everything that the next row depends on.
struct LoaderState {
  std::vector<int64_t> source_rows;
  std::vector<StreamState> streams;
};

struct Produced {
  Row row;
  LoaderState after;
};

}  // namespace

class RowLoader::Impl {
 public:
  Impl(const LoaderConfig& config, std::shared_ptr<const Tokenizer> tokenizer)
      : config_((ValidateConfig(config), config)), mixture_(WeightsOf(config.sources)) {
    for (size_t s = 0; s < config.sources.size(); ++s) {
      const uint64_t seed = DeriveKey(config.seed, s);
      sources_.push_back(OpenSource(config.sources[s].paths, config.sources[s], config,
                                    DeriveKey(seed, kVisitDraws), tokenizer, notes_));
      orders_.push_back(MakeOrder(*sources_[s], seed));
      streams_.emplace_back(sources_[s], orders_[s], config.packing);
    }
    if (!config.held_out_paths.empty()) held_out_ = OpenHeldOut(tokenizer);
    returned_ = CurrentState();
  }

  Row Next() {
    Produced produced = Take();
    returned_ = std::move(produced.after);
    return std::move(produced.row);
  }

  Json SaveState() const {
    Json streams = Json::array();
    for (const StreamState& stream : returned_.streams)
      streams.push_back(StreamStateToJson(stream));
    Json state = Identity();
    state["source_rows"] = returned_.source_rows;
    state["shares"] = mixture_.shares();
    state["streams"] = std::move(streams);
    return state;
  }

  bool RestoreState(const Json& json) {
    const std::string difference = Difference(json);
    if (!difference.empty()) {
      LWM_REQUIRE(config_.allow_changed, difference,
                  "; restore the data settings and files, begin a new run in another "
                  "train.run_folder, or set data.allow_changed = true to go on with this data from "
                  "its beginning");
      return false;
    }
    const LoaderState state = ParseState(json);
    ahead_.reset();  // with what it made
    // Rows read under other shares do not count: one source alone would have to catch up for long.
    const bool same_shares =
        JsonGet(json, "shares", "data state", mixture_.shares()) == mixture_.shares();
    mixture_.Restore(same_shares ? state.source_rows
                                 : std::vector<int64_t>(state.source_rows.size(), 0));
    for (size_t s = 0; s < streams_.size(); ++s) streams_[s].Restore(state.streams[s]);
    returned_ = CurrentState();
    return true;
  }

  std::vector<std::string> Survey() const {
    std::vector<std::string> lines;
    std::vector<std::shared_ptr<const ExampleSource>> all = sources_;
    if (held_out_) all.push_back(held_out_);
    for (const auto& source : all) {
      const std::vector<std::string> more =
          Describe(SurveySource(*source, config_.packing), config_.packing);
      lines.insert(lines.end(), more.begin(), more.end());
    }
    return lines;
  }

  std::unique_ptr<RowSequence> HeldOut() const {
    std::vector<HeldOutPart> parts;
    for (size_t s = 0; s < sources_.size(); ++s) {
      HeldOutPart part{sources_[s], {}};
      for (int64_t i = 0; i < orders_[s].held_out_units(); ++i)
        part.units.push_back(orders_[s].HeldOutUnit(i));
      parts.push_back(std::move(part));
    }
    if (held_out_) {
      parts.push_back({held_out_, {}});
      for (int64_t i = 0; i < held_out_->units(); ++i) parts.back().units.push_back(i);
    }
    return std::make_unique<HeldOutRows>(std::move(parts), config_.packing);
  }

  Summary summary() const {
    Summary summary;
    summary.notes = notes_;
    for (size_t s = 0; s < sources_.size(); ++s) {
      summary.files += sources_[s]->files();
      summary.train_units += orders_[s].train_units();
      summary.held_out_units += orders_[s].held_out_units();
      const int64_t tokens = sources_[s]->tokens();
      summary.tokens = tokens < 0 || summary.tokens < 0 ? -1 : summary.tokens + tokens;
    }
    if (held_out_) summary.held_out_units += held_out_->units();
    return summary;
  }

  double epoch() const {
    const auto drawn = static_cast<double>(returned_.streams[0].position);
    return drawn / static_cast<double>(orders_[0].epoch_visits());
  }

  void EncodeMedia(int64_t part, int64_t parts,
                   const std::function<void(int64_t done, int64_t total)>& progress) const {
    std::vector<std::shared_ptr<const ExampleSource>> all = sources_;
    if (held_out_) all.push_back(held_out_);
    int64_t done = 0, total = 0;
    for (const auto& source : all) total += (source->units() + parts - 1 - part) / parts;
    for (const auto& source : all)
      source->EncodeMedia(part, parts, [&](int64_t units) { progress(done += units, total); });
  }

  int64_t skipped() const {
    int64_t skipped = held_out_ ? held_out_->skipped() : 0;
    for (const auto& source : sources_) skipped += source->skipped();
    return skipped;
  }

 private:
  UnitOrder MakeOrder(const ExampleSource& source, uint64_t seed) const {
    const int64_t units = source.units(), held_out = HeldOutUnits(config_, units);
    if (!source.has_weights()) return UnitOrder(seed, units, held_out);
    return UnitOrder(seed, units, held_out, [&](int64_t unit) { return source.Weight(unit); });
  }

  // Held-out files are read as the first source's, but for its weights.
  std::shared_ptr<const ExampleSource> OpenHeldOut(
      const std::shared_ptr<const Tokenizer>& tokenizer) {
    SourceConfig source = config_.sources[0];
    source.line_weights = false;
    auto held_out = OpenSource(config_.held_out_paths, source, config_, 0, tokenizer, notes_);
    for (const auto& trained : sources_)
      if (trained->fingerprint() == held_out->fingerprint())
        notes_.push_back(Cat("the held-out text of ", held_out->name(),
                             " is trained on too: its loss says nothing of new text"));
    return held_out;
  }

  // From a thread of its own when rows are to be made ahead.
  Produced Take() {
    if (config_.prefetch_rows == 0) return Produce();
    if (!ahead_)
      ahead_.emplace([this] { return std::optional(Produce()); },
                     static_cast<size_t>(config_.prefetch_rows));
    return *ahead_->Next();  // Produce always gives one, or Next throws what it threw
  }

  Produced Produce() {
    Produced produced;
    produced.row = streams_[mixture_.Next()].Next();
    produced.after = CurrentState();
    return produced;
  }

  LoaderState CurrentState() const {
    LoaderState state{mixture_.rows(), {}};
    for (const RowStream& stream : streams_) state.streams.push_back(stream.state());
    return state;
  }

  // Properties of the data that must be the same for a saved state to apply.
  Json Identity() const {
    Json units = Json::array(), tokens = Json::array(), content = Json::array();
    for (const auto& source : sources_) {
      units.push_back(source->units());
      tokens.push_back(source->tokens());
      content.push_back(source->fingerprint());
    }
    Json identity = {{"version", kStateVersion},
                     {"seed", config_.seed},
                     {"row_tokens", config_.packing.row_tokens},
                     {"policy", static_cast<int>(config_.packing.policy)},
                     {"held_out", summary().held_out_units},
                     {"units", units},
                     {"tokens", tokens},
                     {"content", content},
                     {"held_out_content", held_out_ ? held_out_->fingerprint() : ""}};
    // Absent without weights, as in states of earlier versions.
    if (std::any_of(sources_.begin(), sources_.end(),
                    [](const auto& s) { return s->has_weights(); }))
      for (const UnitOrder& order : orders_) identity["visits"].push_back(order.epoch_visits());
    return identity;
  }

  // How the data differs from that of a saved run, in one line; "" when it is the same.
  std::string Difference(const Json& state) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, state.is_object(), "data state: want an object");
    Json identity = Identity();
    if (state.contains("visits") && !identity.contains("visits")) identity["visits"] = nullptr;
    for (const char* content : {"content", "held_out_content"})  // not in earlier versions' states
      if (!state.contains(content)) identity.erase(content);
    const std::string other = OtherContent(state, identity);
    if (!other.empty()) return other;
    for (const auto& [key, value] : identity.items()) {
      const Json saved = state.value(key, Json());
      if (saved != value)
        return Cat("the data is not that of the saved run: ", key, " was ", saved.dump(),
                   " and is ", value.dump());
    }
    return "";
  }

  // The source whose files hold another text than in the saved run, in one line.
  std::string OtherContent(const Json& state, const Json& identity) const {
    const Json saved = state.value("content", Json());
    if (!identity.contains("content") || !saved.is_array() || saved.size() != sources_.size())
      return "";
    for (size_t s = 0; s < sources_.size(); ++s)
      if (saved[s] != identity["content"][s])
        return Cat("the data has changed since the run was saved: the text of ",
                   sources_[s]->name(), " is not what it was");
    return "";
  }

  LoaderState ParseState(const Json& json) const {
    LoaderState state;
    state.source_rows = JsonGet<std::vector<int64_t>>(json, "source_rows", "data state");
    for (const Json& stream : JsonGet<std::vector<Json>>(json, "streams", "data state"))
      state.streams.push_back(ParseStreamState(stream));
    LWM_REQUIRE_AS(
        ErrorCode::kCorruptData,
        state.streams.size() == streams_.size() && state.source_rows.size() == streams_.size(),
        "data state: want ", streams_.size(), " sources");
    return state;
  }

  LoaderConfig config_;
  std::vector<std::string> notes_;
  std::vector<std::shared_ptr<const ExampleSource>> sources_;
  std::vector<UnitOrder> orders_;
  std::vector<RowStream> streams_;
  std::shared_ptr<const ExampleSource> held_out_;
  Mixture mixture_;
  LoaderState returned_;
  std::optional<Prefetch<Produced>> ahead_;  // the last: its thread uses all others
};

RowLoader::RowLoader(const LoaderConfig& config, std::shared_ptr<const Tokenizer> tokenizer)
    : impl_(std::make_unique<Impl>(config, std::move(tokenizer))) {}
RowLoader::~RowLoader() = default;

Row RowLoader::Next() { return impl_->Next(); }
Json RowLoader::SaveState() const { return impl_->SaveState(); }
bool RowLoader::RestoreState(const Json& state) { return impl_->RestoreState(state); }
std::vector<std::string> RowLoader::Survey() const { return impl_->Survey(); }
std::unique_ptr<RowSequence> RowLoader::HeldOut() const { return impl_->HeldOut(); }
RowLoader::Summary RowLoader::summary() const { return impl_->summary(); }
double RowLoader::epoch() const { return impl_->epoch(); }
int64_t RowLoader::skipped() const { return impl_->skipped(); }
void RowLoader::EncodeMedia(
    int64_t part, int64_t parts,
    const std::function<void(int64_t done, int64_t total)>& progress) const {
  impl_->EncodeMedia(part, parts, progress);
}

}  // namespace lwm::data
