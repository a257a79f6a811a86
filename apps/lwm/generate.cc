// lwm generate: continues a text, token by token.

#include <cstdio>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/json.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/infer/generator.h"
#include "model_flags.h"

namespace lwm::app {
namespace {

struct GenerateFlags {
  RunFlags run;
  std::string model, prompt, prompt_file;
  std::vector<int64_t> ids;
  bool parse_special = false;
  infer::GenerateOptions options;
};

void PrintStatistics(const infer::GenerateResult& result) {
  if (result.stop == infer::GenerateResult::Stop::kContextFull)
    std::fprintf(stderr, "stopped: the model's context is full\n");
  std::fprintf(stderr,
               "prefill %lld tokens, %.1f tokens/s; decode %zu tokens, %.1f tokens/s; peak "
               "memory %s\n",
               static_cast<long long>(result.prompt_tokens), result.PrefillTokensPerSecond(),
               result.new_ids.size(), result.DecodeTokensPerSecond(),
               FormatBytes(static_cast<double>(PeakMemoryBytes())).c_str());
}

void GenerateIds(const infer::DecodeModel& model, const GenerateFlags& flags) {
  const infer::GenerateResult result =
      infer::Generate(model, flags.ids, flags.options, [](int64_t) { return true; });
  std::printf("%s\n", Json(result.new_ids).dump().c_str());
  PrintStatistics(result);
}

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void GenerateText(const infer::DecodeModel& model, const GenerateFlags& flags,
                  const std::string& prompt) {
  const auto tokenizer = OpenTokenizerFor(model.config(), flags.model);
  const std::vector<int32_t> prompt_ids = EncodePrompt(*tokenizer, prompt, flags.parse_special);
  data::StreamDecoder decoder(*tokenizer);
  for (const int32_t id : prompt_ids) decoder.Push(id);  // what follows goes on where it ends
  infer::GenerateOptions options = flags.options;
  options.vocabulary = tokenizer->vocab_size();
  const infer::GenerateResult result = infer::Generate(
      model, std::vector<int64_t>(prompt_ids.begin(), prompt_ids.end()), options, [&](int64_t id) {
        Print(decoder.Push(static_cast<int32_t>(id)));
        return true;
      });
  Print(decoder.Finish() + "\n");
  PrintStatistics(result);
}

void RunGenerate(const GenerateFlags& flags) {
  flags.options.sampling.Validate();
  Session session(flags.run);
  RequireOneRank(session, "generate");
  model::ResidentWeights weights = LoadModelFor(flags.run, flags.model);
  const infer::DecodeModel model(weights.config(), weights);
  if (!flags.ids.empty()) return GenerateIds(model, flags);
  GenerateText(model, flags,
               flags.prompt_file.empty() ? flags.prompt : ReadFile(flags.prompt_file));
}

void AddSampling(CLI::App& command, infer::SamplingOptions& sampling) {
  command.add_option("--temperature", sampling.temperature, "0 = always the likeliest token")
      ->capture_default_str();
  command.add_option("--top-k", sampling.top_k, "draw from the k likeliest tokens; 0 = all")
      ->capture_default_str();
  command
      .add_option("--top-p", sampling.top_p,
                  "draw from the fewest likeliest tokens with this probability together")
      ->capture_default_str();
}

void AddGenerate(CLI::App& root) {
  CLI::App* command = root.add_subcommand("generate", "continue a text");
  auto flags = std::make_shared<GenerateFlags>();
  flags->options.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95};
  command->add_option("--model", flags->model, "model directory")->required();
  CLI::Option_group* prompt = command->add_option_group("prompt");
  prompt->add_option("--prompt", flags->prompt, "text to continue");
  prompt->add_option("--prompt-file", flags->prompt_file, "file with the text to continue");
  prompt->add_option("--ids", flags->ids, "token ids, 1,2,3; prints the new ids as a JSON array")
      ->delimiter(',');
  prompt->require_option(1);
  command->add_flag("--parse-special", flags->parse_special,
                    "names such as <|im_start|> in the prompt are special tokens");
  command->add_option("--max-new-tokens", flags->options.max_new_tokens, "stop after this many")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddSampling(*command, flags->options.sampling);
  command->add_flag("--ignore-eos", flags->options.ignore_eos, "go on after the end of the text");
  AddRunFlags(*command, flags->run);
  AddExamples(*command,
              "  lwm generate --model DIR --prompt 'It was a dark night' --max-new-tokens 100\n"
              "  lwm generate --model DIR --prompt-file book.txt --temperature 0\n"
              "  lwm generate --model DIR --ids 1,529,4924 --temperature 0 --ignore-eos");
  command->callback([flags] {
    flags->options.seed = flags->run.seed;
    RunGenerate(*flags);
  });
}
const Command generate_command("generate", AddGenerate);

}  // namespace
}  // namespace lwm::app
