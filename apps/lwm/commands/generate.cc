// lwm generate: continues a text, token by token; with images, text about them and new ones.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "chat_prompt.h"
#include "command.h"
#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "image_folder.h"
#include "image_model.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/data/text_file.h"
#include "lwm/infer/batch_generator.h"
#include "lwm/infer/generator.h"

namespace lwm::app {
namespace {

struct GenerateFlags {
  RunFlags run;
  std::string model, prompt, prompt_file;
  std::vector<int64_t> ids;
  bool parse_special = false;
  ChatFlags chat;
  infer::GenerateOptions options;
  // with images
  infer::SamplingOptions vision_sampling;
  std::vector<std::string> images;
  std::string vqgan, image_folder;
  int64_t max_frames = 8;

  bool has_images() const { return !images.empty() || !image_folder.empty(); }
};

constexpr std::string_view kImageMark = "{image}";
constexpr char kContextFull[] = "stopped: the model's context is full\n";

void PrintStatistics(const infer::GenerateResult& result) {
  if (result.stop == infer::GenerateResult::Stop::kContextFull)
    std::fprintf(stderr, "%s", kContextFull);
  std::fprintf(stderr, "prefill %s, %.1f tokens/s; decode %s, %.1f tokens/s; peak memory %s\n",
               CountOf(result.prompt_tokens, "token").c_str(), result.PrefillTokensPerSecond(),
               CountOf(static_cast<int64_t>(result.new_ids.size()), "token").c_str(),
               result.DecodeTokensPerSecond(),
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
  const std::vector<int32_t> prompt_ids =
      flags.chat.chat ? EncodeChatPrompt(*tokenizer, flags.chat, flags.model, prompt)
                      : EncodePrompt(*tokenizer, prompt, flags.parse_special);
  data::StreamDecoder decoder(*tokenizer);
  for (const int32_t id : prompt_ids) decoder.Push(id);  // prime the decoder with the prompt
  infer::GenerateOptions options = flags.options;
  options.vocabulary = tokenizer->vocab_size();
  bool is_empty = true;
  const auto print = [&](const std::string& text) {
    is_empty = is_empty && text.empty();
    Print(text);
  };
  const infer::GenerateResult result = infer::Generate(
      model, std::vector<int64_t>(prompt_ids.begin(), prompt_ids.end()), options, [&](int64_t id) {
        // An end-of-text token may be an ordinary piece, which would show its name.
        if (options.ignore_eos || !model.config().EndsText(id))
          print(decoder.Push(static_cast<int32_t>(id)));
        return true;
      });
  print(decoder.Finish());
  Print("\n");
  const std::string reason = is_empty ? EmptyAnswerReason(*tokenizer, flags.chat, result) : "";
  if (!reason.empty()) std::fprintf(stderr, "%s\n", reason.c_str());
  PrintStatistics(result);
}

// BOS, then text and images; these stand where {image} does, or first.
infer::MultimodalSequence ImagePrompt(const LoadedImageModel& model, const GenerateFlags& flags,
                                      const std::string& prompt) {
  const auto ids_of = [&](const std::string& text) {
    return flags.parse_special ? data::EncodeWithSpecialTokens(model.tokenizer(), text)
                               : model.tokenizer().Encode(text);
  };
  const size_t mark = prompt.find(kImageMark);
  const bool marked = mark != std::string::npos;
  infer::MultimodalSequence sequence = model.TextPrompt("");
  sequence.AddText(ids_of(marked ? prompt.substr(0, mark) : ""));
  for (const std::string& image : flags.images) {
    const at::Tensor codes_Fn = model.CodesOf(image, {.max_frames = flags.max_frames});
    infer::AddVideo(model.layout(),
                    {codes_Fn.const_data_ptr<int32_t>(), static_cast<size_t>(codes_Fn.numel())},
                    sequence);
  }
  sequence.AddText(ids_of(marked ? prompt.substr(mark + kImageMark.size()) : prompt));
  return sequence;
}

// The frames among new tokens.
void WriteFrames(const LoadedImageModel& model, const infer::MultimodalSequence& added,
                 ImageFolder& folder, const std::string& name) {
  std::vector<int32_t> codes;
  for (size_t i = 0; i < added.id_n.size(); ++i)
    if (added.vision_n[i] != 0 && added.id_n[i] < model.layout().codes)
      codes.push_back(static_cast<int32_t>(added.id_n[i]));
  const auto per_frame = static_cast<size_t>(model.layout().tokens_per_frame);
  codes.resize(codes.size() / per_frame * per_frame);  // the last frame may have been cut short
  std::filesystem::create_directories(name);
  if (codes.empty()) return;
  const auto frames =
      model.FramesOf(at::tensor(codes, at::kInt).view({-1, static_cast<int64_t>(per_frame)}));
  for (const io::RgbImage& frame : frames) folder.Add(frame);
  std::fprintf(stderr, "wrote %s to %s\n",
               CountOf(static_cast<int64_t>(frames.size()), "image").c_str(), name.c_str());
}

void GenerateWithImages(const GenerateFlags& flags, const std::string& prompt) {
  LWM_REQUIRE(flags.ids.empty(), "--ids takes text tokens: leave out --image and --pictures");
  std::optional<ImageFolder> folder;
  if (!flags.image_folder.empty()) folder.emplace(flags.image_folder, /*digits=*/1, /*count=*/0);
  LoadedImageModel model(flags.model, flags.vqgan, ScalarTypeOf(flags.run));
  infer::MixedOptions options;
  options.max_new_tokens = flags.options.max_new_tokens;
  options.text = flags.options.sampling;
  options.vision = flags.vision_sampling;
  options.seeds = {flags.options.seed};
  options.ignore_eos = flags.options.ignore_eos;
  options.vocabulary = model.tokenizer().vocab_size();
  options.max_frames = flags.max_frames;
  const infer::MultimodalSequence added = infer::GenerateMixed(
      model.decoder(), model.layout(), {ImagePrompt(model, flags, prompt)}, options)[0];
  std::vector<int32_t> text;
  for (size_t i = 0; i < added.id_n.size(); ++i)
    if (added.vision_n[i] == 0) text.push_back(static_cast<int32_t>(added.id_n[i]));
  Print(model.tokenizer().Decode(text) + "\n");
  const bool has_ended = !options.ignore_eos && added.vision_n.back() == 0 &&
                         model.decoder().config().EndsText(added.id_n.back());
  if (added.size() < options.max_new_tokens && !has_ended) std::fprintf(stderr, "%s", kContextFull);
  if (folder) WriteFrames(model, added, *folder, flags.image_folder);
}

void RunGenerate(const GenerateFlags& flags) {
  flags.options.sampling.Validate();
  flags.vision_sampling.Validate();
  RunContext context(flags.run);
  RequireOneRank(context, "generate");
  const std::string prompt = flags.prompt_file.empty()  ? flags.prompt
                             : flags.prompt_file == "-" ? ReadStdin()
                                                        : data::ReadText(flags.prompt_file);
  if (flags.has_images()) return GenerateWithImages(flags, prompt);
  WarnOfSettingsNotFollowed(flags.model);
  model::ResidentWeights weights = LoadModelFor(flags.run, flags.model);
  const infer::DecodeModel model(weights.config(), weights);
  if (!flags.ids.empty()) return GenerateIds(model, flags);
  GenerateText(model, flags, prompt);
}

// The flags that were given hold for text and for codes alike.
void FollowModelAdvice(const CLI::App& command, GenerateFlags& flags) {
  const infer::ModelSamplingAdvice advice = infer::ReadSamplingAdvice(flags.model);
  flags.vision_sampling = flags.options.sampling;
  FollowAdvice(command, advice.text, flags.options.sampling);
  FollowAdvice(command, advice.vision, flags.vision_sampling);
}

void AddImageFlags(CLI::App& command, GenerateFlags& flags) {
  command
      .add_option("--image", flags.images,
                  "image or video that the prompt is about, where it says {image} or before it; "
                  "may be given several times")
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option("--max-frames", flags.max_frames,
                  "maximum frames read per video, spread evenly over it, or generated per video")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  command.add_option("--pictures", flags.image_folder,
                     "folder for the frames that the model writes among its text, 0.png, 1.png "
                     "...; it must hold none of these yet");
  command.add_option("--vqgan", flags.vqgan, "VQGAN directory (default: vqgan in the model's)");
}

void AddGenerate(CLI::App& root) {
  CLI::App* command = root.add_subcommand("generate", "continue a text");
  auto flags = std::make_shared<GenerateFlags>();
  flags->options.sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95};
  command->add_option("-m,--model", flags->model, "model directory")->required();
  CLI::Option_group* prompt = command->add_option_group("prompt");
  prompt->add_option("-p,--prompt", flags->prompt, "text to continue");
  prompt->add_option("-f,--prompt-file", flags->prompt_file,
                     "file with the text to continue; - reads stdin");
  CLI::Option* ids =
      prompt
          ->add_option("--ids", flags->ids, "token ids, 1,2,3; prints the new ids as a JSON array")
          ->delimiter(',');
  prompt->require_option(0, 1);
  command
      ->add_flag("--parse-special", flags->parse_special,
                 "names such as <|im_start|> in the prompt are special tokens")
      ->excludes(ids);
  AddChatFlags(*command, flags->chat)->excludes(ids)->excludes("--parse-special");
  command->add_option("-n,--max-new-tokens", flags->options.max_new_tokens, "stop after this many")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddSamplingFlags(*command, flags->options.sampling);
  AddRepetitionPenaltyFlag(*command, flags->options.sampling.repetition_penalty);
  AddImageFlags(*command, *flags);
  command->add_flag("--ignore-eos", flags->options.ignore_eos, "go on after the end of the text");
  AddRunFlags(*command, flags->run);
  AddExamples(
      *command,
      "  lwm generate -m DIR -p 'It was a dark night' -n 100\n"
      "  lwm generate --model DIR --chat --prompt 'What is the capital of France?'\n"
      "  echo 'It was a dark night' | lwm generate --model DIR --prompt-file -\n"
      "  lwm generate --model DIR --prompt-file book.txt --temperature 0\n"
      "  lwm generate --model DIR --ids 1,529,4924 --temperature 0 --ignore-eos\n"
      "  lwm generate --model DIR --image photo.jpg --temperature 0\n"
      "  lwm generate --model DIR --image clip.mp4 --prompt $'USER: What happens?\\n{image} "
      "ASSISTANT:'");
  command->callback([flags, command, prompt] {
    for (const char* flag : {"--vqgan", "--max-frames"})
      LWM_REQUIRE(flags->has_images() || command->count(flag) == 0, flag,
                  " is for --image and --pictures: give one of them, or leave it out");
    LWM_REQUIRE(!flags->chat.chat || !flags->has_images(),
                "--chat is for text: leave out --image and --pictures, or write the prompt's form "
                "yourself");
    LWM_REQUIRE(prompt->count_all() > 0 || flags->has_images(),
                "lwm generate wants one of --prompt, --prompt-file, --ids and --image");
    flags->options.seed = flags->run.seed;
    FollowModelAdvice(*command, *flags);
    RunGenerate(*flags);
  });
}
const Command generate_command(Job::kUse, "generate", AddGenerate);

}  // namespace
}  // namespace lwm::app
