// lwm tokenizer train: a SentencePiece model from text.

#include "lwm/data/tokenizer.h"

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/data/documents.h"
#include "lwm/data/tokenizer_sentencepiece.h"
#include "notes.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct TrainFlags {
  data::TokenizerTraining training;
  std::string output;
};

void RunTrain(const TrainFlags& flags) {
  RequireWritableFolder(fs::path(flags.output).parent_path());
  double bytes = 0;
  size_t files = 0;
  const data::Documents found = data::FindDocuments(flags.training.inputs);
  PrintNotes(found.notes);
  for (const data::DocumentFile& file : found.files) {
    bytes += static_cast<double>(fs::file_size(file.path));
    ++files;
  }
  std::fprintf(stderr, "training a tokenizer of %d pieces on %s in %s\n", flags.training.vocab_size,
               FormatBytes(bytes).c_str(), CountOf(static_cast<int64_t>(files), "file").c_str());
  const double start = MonotonicSeconds();
  WriteFileAtomically(flags.output, data::TrainTokenizer(flags.training));
  std::fprintf(stderr, "wrote %s in %s\n", flags.output.c_str(),
               FormatDuration(MonotonicSeconds() - start).c_str());
}

}  // namespace

void AddTokenizer(CLI::App& command) {
  command.require_subcommand(1);
  CLI::App* train = command.add_subcommand(
      "train", "train a SentencePiece BPE model (byte fallback, split digits, no normalisation)");
  auto flags = std::make_shared<TrainFlags>();
  data::TokenizerTraining& training = flags->training;
  train->add_option("-i,--input", training.inputs, "text and JSONL files, folders, globs")
      ->required();
  train
      ->add_option("--vocab-size", training.vocab_size,
                   "pieces, with the 256 bytes and 3 special ones")
      ->required();
  train->add_option("-o,--output", flags->output, "the .model file to write")->required();
  train
      ->add_option("--character-coverage", training.character_coverage,
                   "share of the text's characters that get pieces; rarer ones become bytes")
      ->check(CLI::Range(0.5, 1.0))
      ->capture_default_str();
  AddExamples(*train,
              "  lwm tokenizer train --input samples/text --vocab-size 8000 --output t.model\n"
              "  lwm tokenizer train --input chat.jsonl 'books/*.txt' --vocab-size 32000 "
              "--output t.model");
  train->callback([flags] { RunTrain(*flags); });
}

}  // namespace lwm::app
