// lwm examples: the field grammar applied to JSONL, one example per line.

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/grammar_flags.h"
#include "flags/media_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/data/documents.h"
#include "lwm/data/field_grammar.h"
#include "lwm/data/packing.h"
#include "lwm/data/tokenizer.h"

namespace lwm::app {
namespace {

struct ExamplesFlags {
  std::string tokenizer, input;
  data::FieldGrammar grammar;
  MediaFlags media;
  bool strict = false;
};

// The weight of each token when it is the target: the first token never is.
std::vector<float> LossWeights(const data::Example& example) {
  std::vector<float> weight_n(example.token_n.size(), 0.0f);
  if (weight_n.size() < 2) return weight_n;
  data::PackingConfig config;
  config.policy = data::PackingPolicy::kPad;
  config.row_tokens = static_cast<int64_t>(weight_n.size());
  data::Packer packer(config);
  packer.Add(example);
  const data::Row row = packer.NextRow();
  std::copy(row.weight_S.begin(), row.weight_S.end() - 1, weight_n.begin() + 1);
  return weight_n;
}

void Print(int64_t line, const data::Example& example) {
  std::vector<int> loss_mask_n;
  for (const float weight : example.loss_weight_n) loss_mask_n.push_back(weight > 0);
  const Json object = {{"line", line},
                       {"tokens", example.token_n},
                       {"vision_mask", example.vision_n},
                       {"loss_mask", loss_mask_n},
                       {"loss_weights", LossWeights(example)}};
  std::printf("%s\n", object.dump().c_str());
}

void Run(ExamplesFlags flags) {
  if (auto media = OpenMedia(flags.media, UserCodeCache()))
    data::UseMedia(flags.grammar, std::move(media));
  const auto tokenizer = data::OpenTokenizer(flags.tokenizer);
  const data::JsonlFile file(flags.input);
  const std::filesystem::path folder = std::filesystem::path(flags.input).parent_path();
  int64_t bad = 0, good = 0;
  for (int64_t line = 0; line < file.lines(); ++line) {
    if (file.is_blank(line)) continue;
    try {
      Print(line, data::BuildExample(file.Parse(line), {line, file.where(line), folder, {}},
                                     *tokenizer, flags.grammar));
      ++good;
    } catch (const Error& error) {
      if (flags.strict || error.code() != ErrorCode::kCorruptData) throw;
      std::fprintf(stderr, "lwm: skipped %s\n", error.what());
      ++bad;
    }
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, good > 0 || bad == 0, flags.input, ": none of ",
                 CountOf(bad, "line"), " is an example");
  if (bad > 0) std::fprintf(stderr, "lwm: skipped %s\n", CountOf(bad, "line").c_str());
}

}  // namespace

void AddExamplesCommand(CLI::App& command) {
  auto flags = std::make_shared<ExamplesFlags>();
  command
      .add_option("--tokenizer", flags->tokenizer, "a .model or .gguf file, or a model directory")
      ->required();
  command.add_option("-i,--input", flags->input, "the JSONL file")->required();
  AddGrammarFlags(command, flags->grammar);
  AddMediaFlags(command, flags->media);
  command.add_flag("--strict", flags->strict, "end at a bad line instead of skipping it");
  AddExamples(command,
              "  lwm examples --tokenizer tokenizer.model --input captions.jsonl --max-frames 8\n"
              "  a line: {\"fields\": \"[question],[vision],answer\", \"question\": \"What is "
              "it?\",\n           \"vision\": [256 codes per frame], \"answer\": \"A dog.\"}");
  command.callback([flags] { Run(*flags); });
}

}  // namespace lwm::app
