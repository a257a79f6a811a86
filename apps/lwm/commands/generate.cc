// lwm generate: continues a text, token by token; with images, text about them and new ones.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <utility>
#include <vector>

#include "command.h"
#include "commands.h"
#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "image_folder.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/data/prompt.h"
#include "lwm/data/text_file.h"
#include "lwm/data/tokenizer_settings.h"
#include "lwm/infer/engine.h"

namespace lwm::app {
namespace {

struct GenerateFlags {
  RunFlags run;
  std::string model, prompt, prompt_file;
  std::vector<int32_t> ids;
  bool parse_special = false, chat = false;
  data::ChatQuestion question;
  int64_t max_new_tokens = 256;
  bool ignore_eos = false;
  infer::SamplingOptions sampling;
  // with images
  infer::SamplingOptions vision_sampling;
  std::vector<std::string> images;
  std::string vqgan, image_folder;
  int64_t max_frames = 8;

  bool has_images() const { return !images.empty() || !image_folder.empty(); }
  data::SpecialNames names() const {
    return parse_special ? data::SpecialNames::kAreTokens : data::SpecialNames::kAreText;
  }
};

// Tokens per second; 0 when nothing was timed.
double Rate(int64_t tokens, double seconds) {
  return tokens > 0 && seconds > 0 ? static_cast<double>(tokens) / seconds : 0;
}

void Print(const std::string& text) {
  std::fwrite(text.data(), 1, text.size(), stdout);
  std::fflush(stdout);
}

void SayIfContextIsFull(const infer::GeneratedSequence& sequence) {
  if (sequence.stop == infer::GeneratedSequence::Stop::kContextFull)
    std::fprintf(stderr, "stopped: the model's context is full\n");
}

infer::GenerateRequest MakeRequest(const GenerateFlags& flags) {
  infer::GenerateRequest request;
  request.max_new_tokens = flags.max_new_tokens;
  request.text = flags.sampling;
  request.vision = flags.vision_sampling;
  request.text_seed = flags.run.seed;
  request.vision_seed = DeriveKey(flags.run.seed, 1);  // a stream of its own
  request.ignore_eos = flags.ignore_eos;
  request.video.max_frames = flags.max_frames;
  return request;
}

// Generates, with each id given to `on_id` at once, and prints statistics.
infer::GeneratedSequence Run(const infer::Engine& engine, infer::GenerateRequest request,
                             const std::function<void(int32_t)>& on_id) {
  const double start = MonotonicSeconds();
  double first = start;
  int64_t tokens = 0;
  const auto generated = engine.Generate({std::move(request)}, [&](size_t, int64_t id, bool) {
    if (tokens++ == 0) first = MonotonicSeconds();
    on_id(static_cast<int32_t>(id));
    return true;
  });
  const infer::GeneratedSequence& sequence = generated[0];
  SayIfContextIsFull(sequence);
  std::fprintf(stderr, "prefill %s, %.1f tokens/s; decode %s, %.1f tokens/s; peak memory %s\n",
               CountOf(sequence.prompt_tokens, "token").c_str(),
               Rate(sequence.prompt_tokens, first - start), CountOf(tokens, "token").c_str(),
               Rate(tokens - 1, MonotonicSeconds() - first),
               FormatBytes(static_cast<double>(PeakMemoryBytes())).c_str());
  return sequence;
}

void GenerateIds(const GenerateFlags& flags) {
  const infer::Engine engine(flags.model, {.dtype = ScalarTypeOf(flags.run), .tokenizer = false});
  infer::GenerateRequest request = MakeRequest(flags);
  request.prompt.AddText(flags.ids);
  std::vector<int32_t> ids;
  Run(engine, std::move(request), [&](int32_t id) { ids.push_back(id); });
  std::printf("%s\n", Json(ids).dump().c_str());
}

std::string NameOf(const data::Tokenizer& tokenizer, int64_t id) {
  for (const auto& [name, special] : tokenizer.special_tokens())
    if (special == id) return name;
  return Cat("of id ", id);
}

// Explains an answer without text, which an end-of-text token ended.
void ExplainEmptyAnswer(const data::Tokenizer& tokenizer, int64_t last_id, bool chat) {
  const bool is_chat_model = !tokenizer.settings().chat_template().empty();
  std::fprintf(stderr, "empty answer: the model ended it at once with the end-of-text token %s%s\n",
               NameOf(tokenizer, last_id).c_str(),
               is_chat_model && !chat ? "; it has a chat template, try --chat" : "");
}

void GenerateText(const GenerateFlags& flags, const std::string& prompt) {
  const infer::Engine engine(flags.model, {.dtype = ScalarTypeOf(flags.run)});
  const data::Tokenizer& tokenizer = engine.tokenizer();
  data::ChatQuestion question = flags.question;
  question.user = prompt;
  question.model = flags.model;
  const std::vector<int32_t> ids = flags.chat
                                       ? data::EncodeChatQuestion(tokenizer, question)
                                       : data::EncodePrompt(tokenizer, prompt, flags.names());
  data::StreamDecoder decoder(tokenizer);
  for (const int32_t id : ids) decoder.Push(id);  // prime the decoder with the prompt
  bool is_empty = true;
  const auto print = [&](const std::string& text) {
    is_empty = is_empty && text.empty();
    Print(text);
  };
  infer::GenerateRequest request = MakeRequest(flags);
  request.prompt.AddText(ids);
  const infer::GeneratedSequence answer = Run(engine, std::move(request), [&](int32_t id) {
    // An end-of-text token may be an ordinary piece, which would show its name.
    if (flags.ignore_eos || !engine.config().EndsText(id)) print(decoder.Push(id));
  });
  print(decoder.Finish());
  Print("\n");
  if (is_empty && answer.stop == infer::GeneratedSequence::Stop::kEndOfText)
    ExplainEmptyAnswer(tokenizer, answer.added.id_n.back(), flags.chat);
}

// The frames among new tokens.
void WriteFrames(const infer::Engine& engine, const data::MultimodalSequence& added,
                 ImageFolder& folder, const std::string& name) {
  std::filesystem::create_directories(name);
  const std::vector<int32_t> codes = infer::FrameCodes(added, engine.layout());
  if (codes.empty()) return;
  const auto frames =
      engine.FramesOf(at::tensor(codes, at::kInt).view({-1, engine.layout().tokens_per_frame}));
  for (const io::RgbImage& frame : frames) folder.Add(frame);
  std::fprintf(stderr, "wrote %s to %s\n",
               CountOf(static_cast<int64_t>(frames.size()), "image").c_str(), name.c_str());
}

void GenerateWithImages(const GenerateFlags& flags, const std::string& prompt) {
  LWM_REQUIRE(flags.ids.empty(), "--ids takes text tokens: leave out --image and --pictures");
  std::optional<ImageFolder> folder;
  if (!flags.image_folder.empty()) folder.emplace(flags.image_folder, /*digits=*/1, /*count=*/0);
  const infer::Engine engine(
      flags.model, {.dtype = ScalarTypeOf(flags.run), .images = true, .vqgan = flags.vqgan});
  std::vector<std::vector<int32_t>> media;
  for (const std::string& path : flags.images) {
    const at::Tensor codes_Fn = engine.CodesOf(path, {.max_frames = flags.max_frames});
    const int32_t* codes = codes_Fn.const_data_ptr<int32_t>();
    media.emplace_back(codes, codes + codes_Fn.numel());
  }
  infer::GenerateRequest request = MakeRequest(flags);
  request.prompt =
      data::MediaPrompt(engine.tokenizer(), engine.layout(), prompt, flags.names(), media);
  const infer::GeneratedSequence answer = engine.Generate({std::move(request)})[0];
  Print(engine.tokenizer().Decode(answer.Text()) + "\n");
  SayIfContextIsFull(answer);
  if (folder) WriteFrames(engine, answer.added, *folder, flags.image_folder);
}

void RunGenerate(const GenerateFlags& flags) {
  flags.sampling.Validate();
  flags.vision_sampling.Validate();
  RunContext context(flags.run);
  RequireOneRank(context, "generate");
  const std::string prompt = flags.prompt_file.empty()  ? flags.prompt
                             : flags.prompt_file == "-" ? ReadStdin()
                                                        : data::ReadText(flags.prompt_file);
  if (flags.has_images()) return GenerateWithImages(flags, prompt);
  WarnOfSettingsNotFollowed(flags.model);
  if (!flags.ids.empty()) return GenerateIds(flags);
  GenerateText(flags, prompt);
}

// The flags that were given hold for text and for codes alike.
void FollowModelAdvice(const CLI::App& command, GenerateFlags& flags) {
  const infer::ModelSamplingAdvice advice = infer::ReadSamplingAdvice(flags.model);
  flags.vision_sampling = flags.sampling;
  FollowAdvice(command, advice.text, flags.sampling);
  FollowAdvice(command, advice.vision, flags.vision_sampling);
}

CLI::Option* AddChatFlags(CLI::App& command, GenerateFlags& flags) {
  CLI::Option* chat = command.add_flag(
      "--chat", flags.chat,
      "the prompt is a user's question: put it into the model's own chat template");
  command
      .add_option("--system", flags.question.system,
                  "with --chat: what the model is to be or to do")
      ->needs(chat);
  command
      .add_option("--template", flags.question.template_file,
                  "with --chat: file with a Jinja chat template instead of the model's own")
      ->needs(chat);
  return chat;
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

}  // namespace

void AddGenerate(CLI::App& command) {
  auto flags = std::make_shared<GenerateFlags>();
  flags->sampling = {.temperature = 0.8, .top_k = 0, .top_p = 0.95};
  command.add_option("-m,--model", flags->model, "model directory")->required();
  CLI::Option_group* prompt = command.add_option_group("prompt");
  prompt->add_option("-p,--prompt", flags->prompt, "text to continue");
  prompt->add_option("-f,--prompt-file", flags->prompt_file,
                     "file with the text to continue; - reads stdin");
  CLI::Option* ids =
      prompt
          ->add_option("--ids", flags->ids, "token ids, 1,2,3; prints the new ids as a JSON array")
          ->delimiter(',');
  prompt->require_option(0, 1);
  command
      .add_flag("--parse-special", flags->parse_special,
                "names such as <|im_start|> in the prompt are special tokens")
      ->excludes(ids);
  AddChatFlags(command, *flags)->excludes(ids)->excludes("--parse-special");
  command.add_option("-n,--max-new-tokens", flags->max_new_tokens, "stop after this many")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddSamplingFlags(command, flags->sampling);
  AddRepetitionPenaltyFlag(command, flags->sampling.repetition_penalty);
  AddImageFlags(command, *flags);
  command.add_flag("--ignore-eos", flags->ignore_eos, "go on after the end of the text");
  AddRunFlags(command, flags->run);
  AddExamples(
      command,
      "  lwm generate -m DIR -p 'It was a dark night' -n 100\n"
      "  lwm generate --model DIR --chat --prompt 'What is the capital of France?'\n"
      "  echo 'It was a dark night' | lwm generate --model DIR --prompt-file -\n"
      "  lwm generate --model DIR --prompt-file book.txt --temperature 0\n"
      "  lwm generate --model DIR --ids 1,529,4924 --temperature 0 --ignore-eos\n"
      "  lwm generate --model DIR --image photo.jpg --temperature 0\n"
      "  lwm generate --model DIR --image clip.mp4 --prompt $'USER: What happens?\\n{image} "
      "ASSISTANT:'");
  command.callback([flags, &command, prompt] {
    for (const char* flag : {"--vqgan", "--max-frames"})
      LWM_REQUIRE(flags->has_images() || command.count(flag) == 0, flag,
                  " is for --image and --pictures: give one of them, or leave it out");
    LWM_REQUIRE(!flags->chat || !flags->has_images(),
                "--chat is for text: leave out --image and --pictures, or write the prompt's form "
                "yourself");
    LWM_REQUIRE(prompt->count_all() > 0 || flags->has_images(),
                "lwm generate wants one of --prompt, --prompt-file, --ids and --image");
    FollowModelAdvice(command, *flags);
    RunGenerate(*flags);
  });
}

}  // namespace lwm::app
