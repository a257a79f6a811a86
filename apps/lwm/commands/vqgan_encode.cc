// lwm vqgan encode: images and videos to codes.
#include <ATen/ATen.h>

#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "commands/vqgan.h"
#include "flags/model_flags.h"
#include "lwm/base/count_of.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/base/prefetch.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/safetensors_rows.h"
#include "lwm/io/tensor_source.h"
#include "lwm/vision/frame_batches.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/media_frames.h"
#include "progress.h"

namespace lwm::app {
namespace {

struct EncodeFlags {
  VqganRunFlags common;
  std::string input, output;
  std::vector<std::string> paths;
  bool latents = false;
  int64_t size = 0;
  vision::MediaOptions media;
};

// Codes (and latents) batch by batch, written as they come.
class CodeWriter {
 public:
  CodeWriter(const vision::Vqgan& vqgan, const EncodeFlags& flags)
      : vqgan_(vqgan), path_(flags.output), keep_latents_(flags.latents) {}

  void Add(const at::Tensor& images_NHWC) {
    const at::Tensor latents_NhwC = vqgan_.Latents(images_NHWC).to(at::kFloat).contiguous();
    const at::Tensor codes_Nhw = vqgan_.Quantise(latents_NhwC);
    if (!rows_) Open(codes_Nhw, latents_NhwC);
    rows_->Append(0, checkpoint::TensorBytes(codes_Nhw.contiguous()));
    if (keep_latents_) rows_->Append(1, checkpoint::TensorBytes(latents_NhwC));
  }

  void Finish() {
    LWM_REQUIRE(rows_.has_value(), "nothing could be encoded; ", path_, " was not written");
    rows_->Finish();
  }

 private:
  void Open(const at::Tensor& codes_Nhw, const at::Tensor& latents_NhwC) {
    std::vector<io::TensorInfo> rows = {
        {"codes", io::DType::kI32, codes_Nhw.sizes().slice(1).vec()}};
    if (keep_latents_)
      rows.push_back({"latents", io::DType::kF32, latents_NhwC.sizes().slice(1).vec()});
    rows_.emplace(path_, std::move(rows));
  }

  const vision::Vqgan& vqgan_;
  std::string path_;
  bool keep_latents_;
  std::optional<io::SafetensorsRows> rows_;
};

void EncodeTensor(const EncodeFlags& flags, CodeWriter& writer, Progress& progress) {
  const auto source = io::OpenTensorSource(flags.input);
  const std::vector<int64_t>& shape = source->info("images").shape;
  LWM_REQUIRE(shape.size() == 4, flags.input, ": want images [N,H,W,3], got ",
              io::ShapeText(shape));
  ForEachBatch(*source, "images", flags.common.batch, [&](const at::Tensor& images, double share) {
    writer.Add(images);
    progress.Add(images.size(0), share);
  });
}

// One JSON object per image or video on stdout: where its codes are.
void ReportMedia(const vision::MediaFrames& media) {
  for (const vision::MediaItem& item : media.items()) {
    const Json line = {
        {"path", item.path.string()}, {"first", item.first}, {"frames", item.frames}};
    std::printf("%s\n", line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  }
  for (const vision::SkippedMedia& skipped : media.skipped()) {
    const std::string path = skipped.path.string();  // errors name it already
    const std::string prefix = skipped.reason.starts_with(path) ? "" : path + ": ";
    std::fprintf(stderr, "skipped %s%s\n", prefix.c_str(), skipped.reason.c_str());
  }
  if (!media.skipped().empty())
    std::fprintf(stderr, "skipped %s\n",
                 CountOf(static_cast<int64_t>(media.skipped().size()), "file").c_str());
}

struct FrameBatch {
  std::vector<io::RgbImage> frames;
  double share = 0;  // of all media that was read when this was the newest batch
};

// Decodes and resizes on a thread of its own while the batch before is encoded.
void EncodeMedia(const EncodeFlags& flags, const vision::Vqgan& vqgan, CodeWriter& writer,
                 Progress& progress) {
  vision::MediaOptions options = flags.media;
  options.size = flags.size > 0 ? flags.size : vqgan.config().sample_size;
  vision::MediaFrames media({flags.paths.begin(), flags.paths.end()}, options);
  const auto read = [&]() -> std::optional<FrameBatch> {
    auto frames = vision::TakeFrames([&] { return media.Next(); }, flags.common.batch);
    if (frames.empty()) return {};
    return FrameBatch{std::move(frames), media.ShareRead()};
  };
  {
    Prefetch<FrameBatch> batches(read, 2);
    while (const auto batch = batches.Next()) {
      writer.Add(vision::TensorOfFrames(batch->frames));
      progress.Add(static_cast<int64_t>(batch->frames.size()), batch->share);
    }
  }
  ReportMedia(media);
}

void RunEncode(const EncodeFlags& flags) {
  RunContext context(flags.common.run);
  RequireOneRank(context, "vqgan encode");
  LWM_REQUIRE(flags.input.empty() != flags.paths.empty(),
              "lwm vqgan encode wants images, videos or folders, or --input with a tensor");
  const vision::Vqgan vqgan =
      checkpoint::LoadVqgan(flags.common.model, ScalarTypeOf(flags.common.run));
  CodeWriter writer(vqgan, flags);
  Progress progress("encoded", "frame");
  if (flags.input.empty()) {
    EncodeMedia(flags, vqgan, writer, progress);
  } else {
    EncodeTensor(flags, writer, progress);
  }
  writer.Finish();
  progress.Finish(context.threads());
}

// How frames are taken of paths; a tensor is encoded as it is.
void AddSelection(CLI::App& command, EncodeFlags& flags, CLI::Option* tensor) {
  command
      .add_option("--size", flags.size,
                  "side to which images are resized and cropped (default: the model's)")
      ->check(CLI::Range(int64_t{1}, int64_t{8192}))
      ->excludes(tensor);
  command
      .add_option("--frames", flags.media.max_frames,
                  "at most so many of a video, spread evenly (default: all)")
      ->check(CLI::PositiveNumber)
      ->excludes(tensor);
  command
      .add_option("--fps", flags.media.frames_per_second,
                  "frames per second taken of a video (default: all)")
      ->check(CLI::PositiveNumber)
      ->excludes(tensor);
  command
      .add_flag("--skip-bad", flags.media.skip_bad,
                "leave out files that cannot be decoded, and list them")
      ->excludes(tensor);
}

}  // namespace

void AddVqganEncode(CLI::App& vqgan) {
  CLI::App* command = vqgan.add_subcommand("encode", "images and videos to codes");
  auto flags = std::make_shared<EncodeFlags>();
  command->add_option("paths", flags->paths, "images, videos, folders of them");
  CLI::Option* tensor =
      command->add_option("-i,--input", flags->input,
                          "safetensors with images f32 [N,H,W,3] in [-1, 1], instead of paths");
  command
      ->add_option("-o,--output", flags->output,
                   "safetensors: codes i32 [N,h,w]; stdout lists the frames of each file")
      ->required();
  command->add_flag("--latents", flags->latents, "also latents f32 [N,h,w,C]");
  AddSelection(*command, *flags, tensor);
  AddVqganRunFlags(*command, flags->common);
  AddExamples(*command,
              "  lwm vqgan encode --model vqgan photo.jpg pictures/ --output codes.safetensors\n"
              "  lwm vqgan encode --model vqgan clip.mp4 --frames 8 --output codes.safetensors\n"
              "  lwm vqgan encode --model vqgan --input images.safetensors --latents --output "
              "codes.safetensors");
  command->callback([flags] { RunEncode(*flags); });
}

}  // namespace lwm::app
