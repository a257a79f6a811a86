// lwm vqgan decode: codes to images or a video.
#include <ATen/ATen.h>

#include <algorithm>
#include <memory>
#include <string>
#include <vector>

#include "commands/vqgan.h"
#include "flags/model_flags.h"
#include "frame_progress.h"
#include "frame_sink.h"
#include "lwm/base/error.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/tensor_source.h"

namespace lwm::app {
namespace {

struct DecodeFlags {
  VqganRunFlags common;
  std::string input, output;
  double rate = 4;
};

// body(codes of one batch) over all codes of a file, read as they are needed.
template <class Body>
void ForEachBatch(const io::TensorSource& source, int64_t batch, const Body& body) {
  const int64_t count = source.info("codes").shape[0];
  for (int64_t begin = 0; begin < count; begin += batch)
    body(checkpoint::ReadTensorRows(source, "codes", begin, std::min(batch, count - begin)));
}

void RunDecode(const DecodeFlags& flags) {
  RunContext context(flags.common.run);
  RequireOneRank(context, "vqgan decode");
  const auto source = io::OpenTensorSource(flags.input);
  const std::vector<int64_t>& shape = source->info("codes").shape;
  LWM_REQUIRE(shape.size() == 3, flags.input, ": want codes [N,h,w], got ", io::ShapeText(shape));
  const vision::Vqgan vqgan =
      checkpoint::LoadVqgan(flags.common.model, ScalarTypeOf(flags.common.run));
  // All of them before the first image is made: nothing is half done when one is wrong.
  ForEachBatch(*source, 4096, [&](const at::Tensor& codes) { vqgan.RequireCodes(codes); });
  const int64_t count = shape[0];
  const auto sink = MakeFrameSink(flags.output, count, flags.rate);
  FrameProgress progress("decoded");
  if (count == 0) sink->Add(vqgan.Decode(checkpoint::ReadTensor(*source, "codes")));
  int64_t done = 0;
  ForEachBatch(*source, flags.common.batch, [&](const at::Tensor& codes_Nhw) {
    sink->Add(vqgan.Decode(codes_Nhw));
    done += codes_Nhw.size(0);
    progress.Add(codes_Nhw.size(0), static_cast<double>(done) / static_cast<double>(count));
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
