// lwm vqgan measure: how well a VQGAN gives images back.
#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <string>
#include <vector>

#include "command.h"
#include "commands/vqgan.h"
#include "flags/model_flags.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/image_file.h"
#include "lwm/vision_train/images.h"
#include "lwm/vision_train/measure.h"

namespace lwm::app {
namespace {

struct VqganMeasureFlags {
  VqganRunFlags common;
  std::vector<std::string> paths;
  std::string only, grid;
  int64_t grid_pictures = 32;
};

void RunMeasure(const VqganMeasureFlags& flags) {
  if (!flags.grid.empty()) RequireWritableFolder(std::filesystem::path(flags.grid).parent_path());
  RunContext context(flags.common.run);
  RequireOneRank(context, "vqgan measure");
  const vision::Vqgan vqgan =
      checkpoint::LoadVqgan(flags.common.model, ScalarTypeOf(flags.common.run));
  vision_train::ImageSetOptions options;
  options.size = vqgan.config().sample_size;
  options.held_out = flags.only;
  for (const std::string& path : flags.paths) options.sources.push_back({.path = path});
  const vision_train::ImageSet images(options);
  const at::Tensor images_NHWC =
      flags.only.empty() ? images.Trained(0, images.num_trained()) : images.HeldOut();
  const auto result = vision_train::Measure(vqgan, images_NHWC);
  if (!flags.grid.empty())
    io::WritePng(flags.grid, vision_train::ReconstructionGrid(images_NHWC, result.output_NHWC,
                                                              flags.grid_pictures));
  std::printf("%s\n", vision_train::ToJson(result).dump().c_str());
}

}  // namespace

void AddVqganMeasure(CLI::App& vqgan) {
  CLI::App* command =
      vqgan.add_subcommand("measure", "PSNR, SSIM and use of codes over images, as JSON");
  auto flags = std::make_shared<VqganMeasureFlags>();
  command->add_option("paths", flags->paths, "images, videos, folders of them")->required();
  command->add_option("--only", flags->only,
                      "text file with the names of the images that count, one a line");
  command->add_option("--grid", flags->grid, "PNG of originals over their reconstructions");
  command->add_option("--grid-pictures", flags->grid_pictures, "images in it")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddVqganRunFlags(*command, flags->common);
  AddExamples(*command,
              "  lwm vqgan measure --model runs/vqgan-clipart/model samples/clipart "
              "--only samples/clipart/validation.txt --dtype f32 --grid grid.png");
  command->callback([flags] { RunMeasure(*flags); });
}

}  // namespace lwm::app
