// lwm eval-pictures: how well a model knows images and their captions.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/eval/image_pairs.h"
#include "lwm/io/image_file.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/image_grid.h"

namespace lwm::app {
namespace {

struct EvalPicturesFlags {
  RunFlags run;
  std::string model, vqgan, pairs, output, grid;
  std::string caption_key = "caption", picture_key = "image_vision";
  eval::PairOptions options;
  bool json = false;
};

void Print(const EvalPicturesFlags& flags, const Json& scores) {
  std::string text;
  if (flags.json || !flags.output.empty()) {
    text = scores.dump(2) + "\n";
  } else {
    for (const auto& [name, value] : scores.items()) text += Cat(name, "  ", value.dump(), "\n");
  }
  if (flags.output.empty())
    std::printf("%s", text.c_str());
  else
    WriteFileAtomically(flags.output, text);
}

void RunEvalPictures(const EvalPicturesFlags& flags) {
  flags.options.drawing.sampling.Validate();
  for (const std::string& result : {flags.grid, flags.output})
    if (!result.empty()) RequireWritableFolder(std::filesystem::path(result).parent_path());
  RunContext context(flags.run);
  RequireOneRank(context, "eval-pictures");
  const infer::Engine engine(
      flags.model, {.dtype = ScalarTypeOf(flags.run), .images = true, .vqgan = flags.vqgan});
  const eval::ImagePairs pairs =
      eval::ReadImagePairs(flags.pairs, flags.caption_key, flags.picture_key, engine.vqgan(),
                           engine.layout().frame_size);
  const double start = MonotonicSeconds();
  const eval::PairScores scores =
      eval::MeasurePairs(engine, pairs, flags.options, [&](const std::string& what, int64_t count) {
        std::fprintf(stderr, "%lld %s, %s\n", static_cast<long long>(count), what.c_str(),
                     FormatDuration(MonotonicSeconds() - start).c_str());
      });
  if (!flags.grid.empty()) {
    const eval::ImagePairs drawn = eval::SomePairs(pairs, flags.options.images);
    io::WritePng(flags.grid,
                 vision::PairGrid(vision::FramesOfTensor(drawn.images_PHWC),
                                  engine.FramesOf(scores.drawn_codes_Dn), {.columns = 12}));
  }
  Print(flags, ToJson(scores));
}

}  // namespace

void AddEvalPictures(CLI::App& command) {
  auto flags = std::make_shared<EvalPicturesFlags>();
  flags->options.drawing.sampling.temperature = 0.5;
  command.add_option("-m,--model", flags->model, "model directory")->required();
  command.add_option("--vqgan", flags->vqgan, "VQGAN directory (default: vqgan in the model's)");
  command.add_option("--pairs", flags->pairs, "JSONL of images and captions")->required();
  command.add_option("--caption-key", flags->caption_key, "of its lines")->capture_default_str();
  command.add_option("--picture-key", flags->picture_key, "of its lines: a path")
      ->capture_default_str();
  command
      .add_option("--count", flags->options.images,
                  "captions that are drawn, spread evenly over the file; 0 = all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  command
      .add_option("--describe", flags->options.captions,
                  "images that are described and scored; 0 = all")
      ->check(CLI::NonNegativeNumber)
      ->capture_default_str();
  AddScaleFlag(command, flags->options.drawing.scale);
  AddSamplingFlags(command, flags->options.drawing.sampling);
  command.add_option("--grid", flags->grid, "PNG: images over what was drawn for their captions");
  command.add_flag("--json", flags->json, "print one JSON object");
  command.add_option("-o,--output", flags->output, "write that object here instead");
  AddRunFlags(command, flags->run);
  AddExamples(command,
              "  lwm eval-pictures --model runs/any-to-any-small/model --pairs "
              "samples/clipart/train.jsonl --count 48 --json");
  command.callback([flags, &command] {
    FollowAdvice(command, flags->model, flags->options.drawing);
    flags->options.drawing.seeds = {flags->run.seed};
    RunEvalPictures(*flags);
  });
}

}  // namespace lwm::app
