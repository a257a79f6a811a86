// lwm score: how well a model predicts a text or a file of tokens, by how much it has read.

#include "lwm/eval/score.h"

#include <algorithm>
#include <cstdio>
#include <memory>
#include <optional>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/model_flags.h"
#include "lwm/base/count_text.h"
#include "lwm/base/error.h"
#include "lwm/data/text_file.h"
#include "lwm/infer/engine.h"
#include "progress.h"

namespace lwm::app {
namespace {

struct ScoreFlags {
  RunFlags run;
  std::string model, text, input;
  int64_t length = 0;
  bool json = false;
};

void PrintRow(const std::string& what, const eval::Tally& tally) {
  std::printf("%-12s %10lld %9.4f %12.3f\n", what.c_str(), static_cast<long long>(tally.tokens),
              tally.Loss(), tally.Perplexity());
}

// longest: tokens of the longest row, where its last bucket ends.
void PrintTable(const eval::Score& score, int64_t longest) {
  std::printf("%-12s %10s %9s %12s\n", "position", "tokens", "loss", "perplexity");
  for (const eval::PositionBucket& bucket : score.buckets)
    if (bucket.tally.tokens > 0)
      PrintRow(ShortTokens(bucket.begin) + "-" + ShortTokens(std::min(bucket.end, longest)),
               bucket.tally);
  if (score.vision.tokens > 0) {
    PrintRow("text", score.text);
    PrintRow("vision", score.vision);
  }
  PrintRow("all", score.all);
}

// A score, and the tokens of its longest row.
struct ScoredFile {
  eval::Score score;
  int64_t longest;
};

ScoredFile ScoreFile(const ScoreFlags& flags, const eval::Scorer& scorer,
                     const eval::OnScored& on_scored) {
  if (!flags.input.empty()) {
    const infer::TokenBatch batch = infer::ReadTokenBatch(flags.input, scorer.config);
    return {eval::ScoreBatch(scorer, batch, on_scored), batch.tokens()};
  }
  const auto tokenizer = infer::OpenTokenizerFor(scorer.config, flags.model);
  const std::vector<int32_t> ids = tokenizer->Encode(data::ReadText(flags.text));
  const int64_t whole = std::max<int64_t>(2, static_cast<int64_t>(ids.size()) + 1);
  const int64_t length =
      flags.length > 0 ? flags.length : std::min(whole, scorer.config.max_position_embeddings);
  const std::optional<int32_t> bos = tokenizer->leading_bos();
  return {eval::ScoreText(scorer, bos, ids, length, on_scored), std::min(whole, length)};
}

void RunScore(const ScoreFlags& flags) {
  RunContext context(flags.run);
  model::ResidentWeights weights = LoadModelFor(flags.run, flags.model);
  dist::Communicator* sp = context.world().size() > 1 ? &context.world() : nullptr;
  const eval::Scorer scorer{weights.config(), weights, {}, sp};
  Progress progress("scored", "token");
  const ScoredFile scored = ScoreFile(flags, scorer, [&](int64_t done, int64_t all) {
    if (context.is_root())
      progress.Update(done, static_cast<double>(done) / static_cast<double>(all));
  });
  if (!context.is_root()) return;
  progress.Finish(context.threads());
  if (flags.json)
    std::printf("%s\n", eval::ScoreToJson(scored.score).dump().c_str());
  else
    PrintTable(scored.score, scored.longest);
}

}  // namespace

void AddScore(CLI::App& command) {
  auto flags = std::make_shared<ScoreFlags>();
  command.add_option("-m,--model", flags->model, "model directory")->required();
  CLI::Option_group* source = command.add_option_group("what to score");
  source->add_option("--text", flags->text, "text file")->check(CLI::ExistingFile);
  CLI::Option* input =
      source
          ->add_option(
              "-i,--input", flags->input,
              "safetensors with input_ids [B,T] and what lwm logits reads beside it; without "
              "labels every next token is predicted")
          ->check(CLI::ExistingFile);
  source->require_option(1);
  command
      .add_option("--length", flags->length,
                  "tokens per row of a text (0: the whole text, at most the model's context)")
      ->check(CLI::NonNegativeNumber)
      ->excludes(input);
  command.add_flag("--json", flags->json, "one JSON object instead of a table");
  AddRunFlags(command, flags->run);
  AddExamples(command,
              "  lwm score --model DIR --text book.txt\n"
              "  lwm score --model DIR --text book.txt --length 4096 --json\n"
              "  mpirun -np 2 lwm score --model DIR --input tokens.safetensors");
  command.callback([flags] { RunScore(*flags); });
}

}  // namespace lwm::app
