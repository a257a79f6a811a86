#pragma once

#include <CLI/CLI.hpp>
#include <span>

namespace lwm::app {

// One subcommand of lwm. `add` gives it its flags, help and examples, and a callback that does the
// work.
struct Command {
  const char* group;  // its heading in `lwm --help`; "": left out there
  const char* name;
  const char* summary;
  void (*add)(CLI::App& command);
};

// All subcommands, in the order of `lwm --help`.
std::span<const Command> Commands();

// Their `add`, each defined in the file of its name: AddEvalPictures in commands/eval_pictures.cc,
// AddBench in bench/bench.cc.
void AddAttention(CLI::App& command);
void AddBench(CLI::App& command);
void AddCompletion(CLI::App& command);
void AddConvert(CLI::App& command);
void AddEncode(CLI::App& command);
void AddEvalPictures(CLI::App& command);
void AddExamplesCommand(CLI::App& command);
void AddGenerate(CLI::App& command);
void AddImage(CLI::App& command);
void AddInspect(CLI::App& command);
void AddLogits(CLI::App& command);
void AddPack(CLI::App& command);
void AddScore(CLI::App& command);
void AddTokenize(CLI::App& command);
void AddTokenizer(CLI::App& command);
void AddTrain(CLI::App& command);
void AddVideo(CLI::App& command);
void AddVqgan(CLI::App& command);

}  // namespace lwm::app
