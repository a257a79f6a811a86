// lwm image: images from text.

#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command.h"
#include "commands.h"
#include "flags/draw_flags.h"
#include "flags/model_flags.h"
#include "flags/sampling_flags.h"
#include "image_folder.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/infer/engine.h"
#include "lwm/io/image_file.h"
#include "lwm/vision/image_grid.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct ImageFlags : DrawFlags {
  std::vector<std::string> prompts;
  int64_t count = 1, columns = 4;
};

// The folder of images; nothing when --output is one PNG with all of them.
std::optional<ImageFolder> OpenOutput(const ImageFlags& flags) {
  const fs::path output(flags.output);
  LWM_REQUIRE(output.extension() == ".png" || output.extension().empty(), "--output ", flags.output,
              ": want a .png file, or a folder for one file each");
  if (output.extension().empty())
    return ImageFolder(output, /*digits=*/1,
                       static_cast<int64_t>(flags.prompts.size()) * flags.count);
  RequireWritableFolder(output.parent_path());
  return {};
}

void RunImage(const ImageFlags& flags) {
  flags.options.sampling.Validate();
  std::optional<ImageFolder> folder = OpenOutput(flags);
  RunContext context(flags.run);
  RequireOneRank(context, "image");
  const infer::Engine engine(flags.model, EngineOptionsFor(flags));
  std::vector<std::string> texts;
  for (const std::string& prompt : flags.prompts)
    for (int64_t i = 0; i < flags.count; ++i) texts.push_back(DrawText(flags, "an image", prompt));
  const at::Tensor codes_Bn =
      engine.Draw(texts, {}, flags.options, ShowCodes(texts.size())).select(1, 0).contiguous();
  const std::vector<io::RgbImage> images = engine.FramesOf(codes_Bn);
  if (!folder)
    return io::WritePng(flags.output, images.size() == 1
                                          ? images[0]
                                          : vision::ImageGrid(images, {.columns = flags.columns}));
  for (const io::RgbImage& image : images) folder->Add(image);
}

}  // namespace

void AddImage(CLI::App& command) {
  auto flags = std::make_shared<ImageFlags>();
  flags->options.scale = 5;
  command.add_option("-p,--prompt", flags->prompts, "what to draw; may be given several times")
      ->required()
      ->take_all()
      ->allow_extra_args(false);
  command
      .add_option("-o,--output", flags->output,
                  "x.png (several images: a grid), or a folder for 0.png, 1.png ... that holds no "
                  "later numbers")
      ->required();
  command.add_option("-n,--n", flags->count, "images for each prompt")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  command.add_option("--columns", flags->columns, "of a grid")
      ->check(CLI::Range(1, 4096))
      ->capture_default_str();
  AddDrawFlags(command, *flags);
  AddExamples(command,
              "  lwm image --model runs/any-to-any-small/model --prompt armadillo "
              "--output x.png\n"
              "  lwm image --model LWM-Chat-1M --vqgan vqgan --chat --prompt 'a fox in the snow' "
              "--n 4 --output foxes.png");
  command.callback([flags, &command] {
    FollowAdvice(command, flags->model, flags->options);
    flags->options.seeds = {flags->run.seed};
    RunImage(*flags);
  });
}

}  // namespace lwm::app
