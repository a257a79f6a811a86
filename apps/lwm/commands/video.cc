// lwm video: videos from text, from a first image, or going on from a video.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>

#include "command.h"
#include "commands.h"
#include "flags/draw_flags.h"
#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/infer/engine.h"
#include "lwm/io/video_writer.h"

namespace lwm::app {
namespace {

struct VideoFlags : DrawFlags {
  std::string prompt, image, input;
  int64_t keep_frames = 0;
  double rate = 4;
};

// Codes of the frames that the video begins with; undefined without any.
at::Tensor FirstFrames(const infer::Engine& engine, const VideoFlags& flags) {
  if (!flags.image.empty()) return engine.CodesOf(flags.image, {}, 1);
  if (flags.input.empty()) return {};
  return engine.CodesOf(flags.input, {.frames_per_second = flags.rate}, flags.keep_frames);
}

void RunVideo(const VideoFlags& flags) {
  flags.options.sampling.Validate();
  const auto writer = io::MakeVideoWriter(flags.output, flags.rate);
  RequireWritableFolder(std::filesystem::path(flags.output).parent_path());
  RunContext context(flags.run);
  RequireOneRank(context, "video");
  const infer::Engine engine(flags.model, EngineOptionsFor(flags));
  const at::Tensor first_Fn = FirstFrames(engine, flags);
  at::Tensor codes_Fn = engine.Draw({DrawText(flags, "a video", flags.prompt)}, first_Fn,
                                    flags.options, ShowCodes(1))[0];
  if (first_Fn.defined()) codes_Fn = at::cat({first_Fn, codes_Fn});
  for (const io::RgbImage& frame : engine.FramesOf(codes_Fn)) writer->Add(frame);
  writer->Finish();
  std::fprintf(stderr, "wrote %s: %s, %lld of them given\n", flags.output.c_str(),
               CountOf(codes_Fn.size(0), "frame").c_str(),
               static_cast<long long>(first_Fn.defined() ? first_Fn.size(0) : 0));
}

}  // namespace

void AddVideo(CLI::App& command) {
  auto flags = std::make_shared<VideoFlags>();
  flags->options.frames = 8;
  flags->options.sampling.top_k = 1000;
  command.add_option("-p,--prompt", flags->prompt,
                     "what it shows; may be left out with a beginning");
  command.add_option("-o,--output", flags->output, "x.mp4 or x.gif")->required();
  command.add_option("--frames", flags->options.frames, "new frames")
      ->check(CLI::Range(1, 1 << 20))
      ->capture_default_str();
  command
      .add_option("--fps", flags->rate, "frames per second of the output, and taken from --input")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  auto* first = command.add_option("--image", flags->image, "image that is the first frame");
  auto* input =
      command.add_option("-i,--input", flags->input, "video or GIF to go on from")->excludes(first);
  command
      .add_option("--keep-frames", flags->keep_frames,
                  "take only so many frames from the beginning of --input (default: all)")
      ->check(CLI::PositiveNumber)
      ->needs(input);
  AddDrawFlags(command, *flags);
  AddExamples(
      command,
      "  lwm video --model DIR --prompt 'people crossing a campus' --frames 8 --output "
      "x.mp4\n"
      "  lwm video --model DIR --prompt 'a city at night' --image first.png --output x.gif\n"
      "  lwm video --model DIR --input clip.mp4 --keep-frames 4 --frames 8 --output x.mp4");
  command.callback([flags, &command] {
    LWM_REQUIRE(!flags->prompt.empty() || !flags->image.empty() || !flags->input.empty(),
                "lwm video wants --prompt, --image or --input");
    FollowAdvice(command, flags->model, flags->options);
    flags->options.seeds = {flags->run.seed};
    RunVideo(*flags);
  });
}

}  // namespace lwm::app
