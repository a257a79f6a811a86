// lwm pack: what training would see of a data set, row by row.

#include <algorithm>
#include <cstdio>
#include <memory>
#include <numeric>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "flags/grammar_flags.h"
#include "flags/media_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/data/documents.h"
#include "lwm/data/example_source.h"
#include "lwm/data/jsonl_source.h"
#include "lwm/data/packing.h"
#include "lwm/data/text_source.h"
#include "lwm/data/tokenizer.h"
#include "lwm/dist/sequence_plan.h"
#include "notes.h"

namespace lwm::app {
namespace {

struct PackFlags {
  std::string tokenizer, policy = "masked", loss = "auto";
  std::vector<std::string> inputs;
  data::PackingConfig packing;
  data::FieldGrammar grammar;
  MediaFlags media;
  int ranks = 4;
  int64_t rows = 0;
  bool skip_bad_lines = false, json = false;
};

// Statistics over all rows.
struct Statistics {
  int64_t rows = 0, tokens = 0, padding = 0, segments = 0, examples = 0;
  int64_t text_targets = 0, vision_targets = 0, skipped = 0;
  int64_t longer_than_row = 0, without_target = 0;  // examples
  double zigzag = 0, balanced = 0;              // sums over rows of mean / max of the ranks' areas
  double worst_zigzag = 1, worst_balanced = 1;  // of a row
};

double Balance(const dist::SequencePlan& plan) {
  const std::vector<int64_t> area_P = dist::AllowedAreaPerRank(plan);
  const double sum = static_cast<double>(std::accumulate(area_P.begin(), area_P.end(), int64_t{0}));
  const auto most = static_cast<double>(*std::max_element(area_P.begin(), area_P.end()));
  return most > 0 ? sum / static_cast<double>(plan.ranks) / most : 1.0;
}

void AddRow(const data::Row& row, int ranks, Statistics& statistics) {
  const auto size = static_cast<int64_t>(row.token_S.size());
  ++statistics.rows;
  statistics.tokens += size;
  statistics.padding += row.padding;
  statistics.examples += row.examples;
  for (size_t i = 0; i < row.token_S.size(); ++i) {
    const bool padding = static_cast<int64_t>(i) >= size - row.padding;
    if (row.position_S[i] == 0 && !padding) ++statistics.segments;
    if (row.target_S[i] == kNoTarget) continue;
    ++(row.target_vision_S[i] ? statistics.vision_targets : statistics.text_targets);
  }
  const double zigzag = Balance(dist::PlanZigzag(size, ranks, row.begin_S));
  const double balanced = Balance(dist::PlanBalanced(size, ranks, row.begin_S));
  statistics.zigzag += zigzag;
  statistics.balanced += balanced;
  statistics.worst_zigzag = std::min(statistics.worst_zigzag, zigzag);
  statistics.worst_balanced = std::min(statistics.worst_balanced, balanced);
}

void AddExample(const data::Example& example, const data::PackingConfig& packing,
                Statistics& statistics) {
  if (example.token_n.empty()) return;  // a skipped line
  const auto size = static_cast<int64_t>(example.token_n.size());
  statistics.longer_than_row += size > packing.row_tokens;
  statistics.without_target += !data::HasTarget(example, packing);
}

Json ToJson(const Statistics& statistics, int ranks) {
  const auto rows = static_cast<double>(std::max<int64_t>(1, statistics.rows));
  const auto tokens = static_cast<double>(std::max<int64_t>(1, statistics.tokens));
  return {{"rows", statistics.rows},
          {"tokens", statistics.tokens},
          {"padding", statistics.padding},
          {"fill", 1 - static_cast<double>(statistics.padding) / tokens},
          {"segments", statistics.segments},
          {"examples", statistics.examples},
          {"text_targets", statistics.text_targets},
          {"vision_targets", statistics.vision_targets},
          {"skipped_lines", statistics.skipped},
          {"examples_longer_than_a_row", statistics.longer_than_row},
          {"examples_without_a_target", statistics.without_target},
          {"ranks", ranks},
          {"area_balance_zigzag", statistics.zigzag / rows},
          {"area_balance_zigzag_worst", statistics.worst_zigzag},
          {"area_balance_balanced", statistics.balanced / rows},
          {"area_balance_balanced_worst", statistics.worst_balanced}};
}

void PrintStatistics(const Statistics& statistics, const PackFlags& flags) {
  const Json json = ToJson(statistics, flags.ranks);
  if (flags.json) {
    std::fprintf(stderr, "%s\n", json.dump().c_str());
    return;
  }
  std::fprintf(stderr, "%s of %s, %.2f %% filled; %s, %lld text and %s\n",
               CountOf(statistics.rows, "row").c_str(),
               CountOf(flags.packing.row_tokens, "token").c_str(), 100 * json["fill"].get<double>(),
               CountOf(statistics.segments, "segment").c_str(),
               static_cast<long long>(statistics.text_targets),
               CountOf(statistics.vision_targets, "vision target").c_str());
  if (statistics.skipped > 0)
    std::fprintf(stderr, "lwm: skipped %s\n", CountOf(statistics.skipped, "line").c_str());
  if (statistics.longer_than_row > 0)
    std::fprintf(stderr, "lwm: cut %s longer than a row of %s\n",
                 CountOf(statistics.longer_than_row, "example").c_str(),
                 CountOf(flags.packing.row_tokens, "token").c_str());
  if (statistics.without_target > 0)
    std::fprintf(stderr, "lwm: %s without a token to learn\n",
                 CountOf(statistics.without_target, "example").c_str());
  for (const char* plan : {"zigzag", "balanced"}) {
    const std::string key = std::string("area_balance_") + plan;
    std::fprintf(stderr, "attention work of %s, mean / max: %s split %.3f, worst row %.3f\n",
                 CountOf(flags.ranks, "rank").c_str(), plan, json[key].get<double>(),
                 json[key + "_worst"].get<double>());
  }
}

void PrintRow(const data::Row& row) {
  const Json object = {{"tokens", row.token_S},   {"vision", row.vision_S},
                       {"begin", row.begin_S},    {"positions", row.position_S},
                       {"targets", row.target_S}, {"target_vision", row.target_vision_S},
                       {"weights", row.weight_S}, {"examples", row.examples},
                       {"padding", row.padding}};
  std::printf("%s\n", object.dump().c_str());
}

data::JsonlSourceOptions MakeJsonlOptions(const PackFlags& flags) {
  data::JsonlSourceOptions options;
  options.grammar = flags.grammar;
  options.skip_bad_lines = flags.skip_bad_lines;
  if (auto media = OpenMedia(flags.media, UserCodeCache()))
    data::UseMedia(options.grammar, std::move(media));
  return options;
}

std::unique_ptr<data::ExampleSource> OpenSource(const PackFlags& flags,
                                                std::shared_ptr<const data::Tokenizer> tokenizer) {
  std::vector<data::DocumentFile> text, jsonl;
  const data::Documents found = data::FindDocuments(flags.inputs);
  PrintNotes(found.notes);
  for (const data::DocumentFile& file : found.files) (file.is_jsonl ? jsonl : text).push_back(file);
  data::TextSourceOptions options;
  options.row_tokens = flags.packing.row_tokens;
  options.joined = flags.packing.policy == data::PackingPolicy::kConcatenate;
  std::vector<std::unique_ptr<data::ExampleSource>> sources;
  if (!text.empty()) sources.push_back(data::OpenTextSource(text, *tokenizer, options));
  if (!jsonl.empty())
    sources.push_back(data::OpenJsonlSource(jsonl, tokenizer, MakeJsonlOptions(flags)));
  return data::JoinSources(std::move(sources));
}

void Run(PackFlags flags) {
  flags.packing.policy = data::ParsePackingPolicy(flags.policy);
  if (flags.loss != "auto") flags.packing.normaliser = data::ParseLossNormaliser(flags.loss);
  data::ValidatePacking(flags.packing, 0);
  const std::shared_ptr<const data::Tokenizer> tokenizer = data::OpenTokenizer(flags.tokenizer);
  flags.packing.pad_token = std::max(0, tokenizer->bos_id());
  const auto source = OpenSource(flags, tokenizer);
  data::Packer packer(flags.packing);
  Statistics statistics;
  for (int64_t unit = 0; flags.rows == 0 || statistics.rows < flags.rows;) {
    while (packer.wants_more() && unit < source->units()) {
      data::Example example = source->Read(unit, data::ExampleSource::kHeldOut);
      AddExample(example, flags.packing, statistics);
      packer.Add(std::move(example), unit);
      ++unit;
    }
    const auto row = packer.wants_more() ? packer.Flush() : std::optional(packer.NextRow());
    if (!row) break;
    PrintRow(*row);
    AddRow(*row, flags.ranks, statistics);
  }
  statistics.skipped = source->skipped();
  PrintStatistics(statistics, flags);
}

}  // namespace

void AddPack(CLI::App& command) {
  auto flags = std::make_shared<PackFlags>();
  command
      .add_option("--tokenizer", flags->tokenizer, "a .model or .gguf file, or a model directory")
      ->required();
  command.add_option("-i,--input", flags->inputs, "JSONL and text files, folders, globs")
      ->required();
  command.add_option("--length", flags->packing.row_tokens, "tokens per row")->required();
  command
      .add_option("--policy", flags->policy,
                  "masked: examples see only themselves; concatenate: joined end to end; pad: one "
                  "example per row")
      ->capture_default_str();
  command
      .add_option("--loss", flags->loss,
                  "what counts as one in the loss: example, row, or auto (row if concatenated)")
      ->capture_default_str();
  command.add_flag("--refuse-long", flags->packing.refuse_long_examples,
                   "an example longer than a row is an error, not split");
  command.add_option("--buffer-tokens", flags->packing.buffer_tokens, "what best fit chooses from")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command.add_option("--ranks", flags->ranks, "ranks that would share a row, for the balance")
      ->check(CLI::Range(1, 1 << 16))
      ->capture_default_str();
  command.add_option("--rows", flags->rows, "stop after this many; 0: all")
      ->check(CLI::NonNegativeNumber);
  command.add_flag("--skip-bad-lines", flags->skip_bad_lines, "warn instead of ending");
  command.add_flag("--json", flags->json, "statistics as one JSON object (on stderr)");
  AddGrammarFlags(command, flags->grammar);
  AddMediaFlags(command, flags->media);
  AddExamples(
      command,
      "  lwm pack --tokenizer tokenizer.model --input chat.jsonl --length 4096 > rows.jsonl\n"
      "  lwm pack --tokenizer tokenizer.model --input chat.jsonl --length 4096 --policy pad "
      "--rows 3");
  command.callback([flags] { Run(*flags); });
}

}  // namespace lwm::app
