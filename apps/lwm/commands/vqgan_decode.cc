// lwm vqgan decode: codes to images or a video.
#include <ATen/ATen.h>

#include <memory>
#include <string>
#include <vector>

#include "commands/vqgan.h"
#include "flags/model_flags.h"
#include "frame_sink.h"
#include "lwm/base/error.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/tensor_source.h"
#include "progress.h"

namespace lwm::app {
namespace {

struct DecodeFlags {
  VqganRunFlags common;
  std::string input, output;
  double rate = 4;
};

void RunDecode(const DecodeFlags& flags) {
  RunContext context(flags.common.run);
  RequireOneRank(context, "vqgan decode");
  const auto source = io::OpenTensorSource(flags.input);
  const std::vector<int64_t>& shape = source->info("codes").shape;
  LWM_REQUIRE(shape.size() == 3, flags.input, ": want codes [N,h,w], got ", io::ShapeText(shape));
  const vision::Vqgan vqgan =
      checkpoint::LoadVqgan(flags.common.model, ScalarTypeOf(flags.common.run));
  // All of them before the first image is made: nothing is half done when one is wrong.
  ForEachBatch(*source, "codes", 4096,
               [&](const at::Tensor& codes, double) { vqgan.RequireCodes(codes); });
  const auto sink = MakeFrameSink(flags.output, shape[0], flags.rate);
  Progress progress("decoded", "frame");
  ForEachBatch(*source, "codes", flags.common.batch, [&](const at::Tensor& codes, double share) {
    sink->Add(vqgan.Decode(codes));
    progress.Add(codes.size(0), share);
  });
  sink->Finish();
  progress.Finish(context.threads());
}

}  // namespace

void AddVqganDecode(CLI::App& vqgan) {
  CLI::App* command = vqgan.add_subcommand("decode", "codes to images or a video");
  auto flags = std::make_shared<DecodeFlags>();
  command->add_option("-i,--input", flags->input, "safetensors with integer codes [N,h,w]")
      ->required();
  command
      ->add_option("-o,--output", flags->output,
                   "x.safetensors (images f32 [N,H,W,3], not clipped), x.png, x.mp4, x.gif, or a "
                   "folder for 000000.png, 000001.png ... that holds no later numbers")
      ->required();
  command->add_option("--fps", flags->rate, "frames per second of the MP4 or GIF")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddVqganRunFlags(*command, flags->common);
  AddExamples(*command,
              "  lwm vqgan decode --model vqgan --input codes.safetensors --output clip.mp4 "
              "--fps 8\n"
              "  lwm vqgan decode --model vqgan --input codes.safetensors --output images");
  command->callback([flags] { RunDecode(*flags); });
}

}  // namespace lwm::app
