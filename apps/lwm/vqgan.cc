// lwm vqgan: pictures and videos as codes of a VQGAN, and codes as pictures and videos.
#include <ATen/ATen.h>

#include <algorithm>
#include <cstdio>
#include <filesystem>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "command.h"
#include "lwm/base/error.h"
#include "lwm/base/json.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/io/media_opencv.h"
#include "lwm/model/tensor_file.h"
#include "lwm/vision/frames.h"
#include "lwm/vision/media_frames.h"
#include "lwm/vision/vqgan_import.h"
#include "model_flags.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

struct VqganFlags {
  RunFlags run;
  std::string model, input, output;
  int64_t batch = 4;
  // encode
  std::vector<std::string> paths;
  bool latents = false;
  int64_t size = 0;
  vision::MediaOptions media;
  // decode
  double rate = 4;
};

// Says on stderr how far long work is, every few seconds.
class Progress {
 public:
  Progress(const char* what, int64_t total) : what_(what), total_(total) {}

  void Add(int64_t frames) {
    done_ += frames;
    const double now = MonotonicSeconds();
    if (now - shown_ < 3) return;
    shown_ = now;
    const std::string of = total_ > 0 ? Cat(" of ", total_) : "";
    std::fprintf(stderr, "%s %lld%s frames, %.2f frames/s\n", what_, static_cast<long long>(done_),
                 of.c_str(), Rate());
  }
  void Finish() const {
    std::fprintf(stderr, "%s %lld frames in %s, %.2f frames/s; peak memory %s\n", what_,
                 static_cast<long long>(done_), FormatDuration(MonotonicSeconds() - start_).c_str(),
                 Rate(), FormatBytes(static_cast<double>(PeakMemoryBytes())).c_str());
  }

 private:
  double Rate() const {
    return static_cast<double>(done_) / std::max(1e-9, MonotonicSeconds() - start_);
  }

  const char* what_;
  int64_t total_, done_ = 0;  // total 0 = not known
  double start_ = MonotonicSeconds(), shown_ = start_;
};

at::Tensor FindTensor(const std::string& file, const char* name) {
  const auto tensors = model::LoadTensors(file);
  const auto found = tensors.find(name);
  LWM_REQUIRE(found != tensors.end(), file, ": there is no tensor '", name, "'");
  return found->second;
}

// Collects codes (and latents) batch by batch.
class Encoder {
 public:
  Encoder(const vision::Vqgan& vqgan, bool keep_latents)
      : vqgan_(vqgan), keep_latents_(keep_latents) {}

  void Add(const at::Tensor& images_NHWC) {
    const at::Tensor latents_NhwC = vqgan_.Latents(images_NHWC);
    codes_.push_back(vqgan_.Quantise(latents_NhwC));
    if (keep_latents_) latents_.push_back(latents_NhwC);
  }

  void Save(const std::string& path) const {
    LWM_REQUIRE(!codes_.empty(), "nothing could be encoded; ", path, " was not written");
    model::NamedTensors tensors{{"codes", at::cat(codes_)}};
    if (keep_latents_) tensors.emplace_back("latents", at::cat(latents_));
    model::SaveTensors(path, tensors);
  }

 private:
  const vision::Vqgan& vqgan_;
  bool keep_latents_;
  std::vector<at::Tensor> codes_, latents_;
};

void EncodeTensor(const VqganFlags& flags, Encoder& encoder) {
  const at::Tensor images_NHWC = FindTensor(flags.input, "images");
  LWM_REQUIRE(images_NHWC.dim() == 4, flags.input, ": want images [N,H,W,3], got ",
              images_NHWC.sizes());
  const int64_t count = images_NHWC.size(0);
  Progress progress("encoded", count);
  if (count == 0) encoder.Add(images_NHWC);
  for (int64_t begin = 0; begin < count; begin += flags.batch) {
    const int64_t frames = std::min(flags.batch, count - begin);
    encoder.Add(images_NHWC.narrow(0, begin, frames));
    progress.Add(frames);
  }
  progress.Finish();
}

// One JSON object per picture or video on stdout: where its codes are.
void ReportMedia(const vision::MediaFrames& media) {
  for (const vision::MediaItem& item : media.items()) {
    const Json line = {
        {"path", item.path.string()}, {"first", item.first}, {"frames", item.frames}};
    std::printf("%s\n", line.dump(-1, ' ', false, Json::error_handler_t::replace).c_str());
  }
  for (const vision::SkippedMedia& skipped : media.skipped())
    std::fprintf(stderr, "skipped %s: %s\n", skipped.path.c_str(), skipped.reason.c_str());
  if (!media.skipped().empty()) std::fprintf(stderr, "skipped %zu files\n", media.skipped().size());
}

void EncodeMedia(const VqganFlags& flags, const vision::Vqgan& vqgan, Encoder& encoder) {
  vision::MediaOptions options = flags.media;
  options.size = flags.size > 0 ? flags.size : vqgan.config().sample_size;
  vision::MediaFrames media({flags.paths.begin(), flags.paths.end()}, options);
  Progress progress("encoded", 0);
  for (bool at_end = false; !at_end;) {
    std::vector<io::RgbImage> frames;
    while (static_cast<int64_t>(frames.size()) < flags.batch && !at_end) {
      auto frame = media.Next();
      at_end = !frame.has_value();
      if (frame) frames.push_back(std::move(*frame));
    }
    if (frames.empty()) break;
    encoder.Add(vision::TensorOfFrames(frames));
    progress.Add(static_cast<int64_t>(frames.size()));
  }
  progress.Finish();
  ReportMedia(media);
}

void RunEncode(const VqganFlags& flags) {
  Session session(flags.run);
  RequireOneRank(session, "vqgan encode");
  LWM_REQUIRE(flags.input.empty() != flags.paths.empty(),
              "lwm vqgan encode wants pictures, videos or folders, or --input with a tensor");
  const vision::Vqgan vqgan = vision::LoadVqgan(flags.model, ScalarTypeOf(flags.run));
  Encoder encoder(vqgan, flags.latents);
  if (flags.input.empty()) {
    EncodeMedia(flags, vqgan, encoder);
  } else {
    EncodeTensor(flags, encoder);
  }
  encoder.Save(flags.output);
}

// Where decoded frames go, chosen by the name of --output.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  virtual void Add(const at::Tensor& images_NHWC) = 0;
  virtual void Finish() = 0;
};

class TensorSink final : public FrameSink {
 public:
  explicit TensorSink(std::string path) : path_(std::move(path)) {}
  void Add(const at::Tensor& images_NHWC) override { images_.push_back(images_NHWC); }
  void Finish() override { model::SaveTensors(path_, {{"images", at::cat(images_)}}); }

 private:
  std::string path_;
  std::vector<at::Tensor> images_;
};

class Mp4Sink final : public FrameSink {
 public:
  Mp4Sink(const std::string& path, double rate) : writer_(path, rate) {}
  void Add(const at::Tensor& images_NHWC) override {
    for (const auto& frame : vision::FramesOfTensor(images_NHWC)) writer_.Add(frame);
  }
  void Finish() override { writer_.Finish(); }

 private:
  io::Mp4Writer writer_;
};

// One PNG, or a folder of 000000.png, 000001.png ...
class PngSink final : public FrameSink {
 public:
  explicit PngSink(fs::path path) : path_(std::move(path)) {}
  void Add(const at::Tensor& images_NHWC) override {
    const bool is_file = path_.extension() == ".png";
    if (!is_file) fs::create_directories(path_);
    for (const auto& frame : vision::FramesOfTensor(images_NHWC)) {
      std::string name = std::to_string(count_++);
      name.insert(0, name.size() < 6 ? 6 - name.size() : 0, '0');
      io::WritePng(is_file ? path_ : path_ / (name + ".png"), frame);
    }
  }
  void Finish() override {}

 private:
  fs::path path_;
  int64_t count_ = 0;
};

std::unique_ptr<FrameSink> MakeSink(const VqganFlags& flags, int64_t frames) {
  const std::string extension = fs::path(flags.output).extension().string();
  if (extension == ".safetensors") return std::make_unique<TensorSink>(flags.output);
  LWM_REQUIRE(frames > 0, flags.input, ": there are no codes to show");
  if (extension == ".mp4") return std::make_unique<Mp4Sink>(flags.output, flags.rate);
  LWM_REQUIRE(extension == ".png" || extension.empty(), flags.output,
              ": want a name that ends in .safetensors, .png or .mp4, or a folder for PNGs");
  LWM_REQUIRE(extension.empty() || frames == 1, flags.output, ": one PNG cannot hold ", frames,
              " frames; name a folder or an .mp4");
  return std::make_unique<PngSink>(flags.output);
}

void RunDecode(const VqganFlags& flags) {
  Session session(flags.run);
  RequireOneRank(session, "vqgan decode");
  const at::Tensor codes_Nhw = FindTensor(flags.input, "codes");
  LWM_REQUIRE(codes_Nhw.dim() == 3, flags.input, ": want codes [N,h,w], got ", codes_Nhw.sizes());
  const vision::Vqgan vqgan = vision::LoadVqgan(flags.model, ScalarTypeOf(flags.run));
  vqgan.RequireCodes(codes_Nhw);
  const int64_t count = codes_Nhw.size(0);
  const auto sink = MakeSink(flags, count);
  Progress progress("decoded", count);
  if (count == 0) sink->Add(vqgan.Decode(codes_Nhw));
  for (int64_t begin = 0; begin < count; begin += flags.batch) {
    const int64_t frames = std::min(flags.batch, count - begin);
    sink->Add(vqgan.Decode(codes_Nhw.narrow(0, begin, frames)));
    progress.Add(frames);
  }
  sink->Finish();
  progress.Finish();
}

void AddCommonFlags(CLI::App& command, VqganFlags& flags) {
  command
      .add_option("--model", flags.model,
                  "VQGAN directory (config.json, diffusion_pytorch_model.safetensors), or a model "
                  "directory that holds one")
      ->required();
  command.add_option("--batch", flags.batch, "frames computed at once")
      ->check(CLI::Range(int64_t{1}, int64_t{4096}))
      ->capture_default_str();
  AddRunFlags(command, flags.run);
}

void AddEncode(CLI::App& root) {
  CLI::App* command = root.add_subcommand("encode", "pictures and videos to codes");
  auto flags = std::make_shared<VqganFlags>();
  command->add_option("paths", flags->paths, "pictures, videos, folders of them");
  command->add_option("--input", flags->input,
                      "safetensors with images f32 [N,H,W,3] in [-1, 1], instead of paths");
  command
      ->add_option("--output", flags->output,
                   "safetensors: codes i32 [N,h,w]; stdout lists the frames of each file")
      ->required();
  command->add_flag("--latents", flags->latents, "also latents f32 [N,h,w,C]");
  command
      ->add_option("--size", flags->size,
                   "side to which pictures are resized and cropped (default: the model's)")
      ->check(CLI::Range(int64_t{1}, int64_t{8192}));
  command
      ->add_option("--frames", flags->media.max_frames,
                   "at most so many of a video, spread evenly (default: all)")
      ->check(CLI::PositiveNumber);
  command
      ->add_option("--fps", flags->media.frames_per_second,
                   "frames per second taken of a video (default: all)")
      ->check(CLI::PositiveNumber);
  command->add_flag("--skip-bad", flags->media.skip_bad,
                    "leave out files that cannot be decoded, and list them");
  AddCommonFlags(*command, *flags);
  AddExamples(*command,
              "  lwm vqgan encode --model vqgan photo.jpg pictures/ --output codes.safetensors\n"
              "  lwm vqgan encode --model vqgan clip.mp4 --frames 8 --output codes.safetensors\n"
              "  lwm vqgan encode --model vqgan --input images.safetensors --latents --output "
              "codes.safetensors");
  command->callback([flags] { RunEncode(*flags); });
}

void AddDecode(CLI::App& root) {
  CLI::App* command = root.add_subcommand("decode", "codes to pictures or a video");
  auto flags = std::make_shared<VqganFlags>();
  command->add_option("--input", flags->input, "safetensors with integer codes [N,h,w]")
      ->required();
  command
      ->add_option("--output", flags->output,
                   "x.safetensors (images f32 [N,H,W,3], not clipped), x.png, x.mp4, or a folder "
                   "of PNGs")
      ->required();
  command->add_option("--fps", flags->rate, "frames per second of the MP4")
      ->check(CLI::PositiveNumber)
      ->capture_default_str();
  AddCommonFlags(*command, *flags);
  AddExamples(*command,
              "  lwm vqgan decode --model vqgan --input codes.safetensors --output clip.mp4 "
              "--fps 8\n"
              "  lwm vqgan decode --model vqgan --input codes.safetensors --output pictures");
  command->callback([flags] { RunDecode(*flags); });
}

void AddVqgan(CLI::App& root) {
  CLI::App* command = root.add_subcommand("vqgan", "pictures and videos as codes, and back");
  command->require_subcommand(1);
  AddEncode(*command);
  AddDecode(*command);
}
const Command vqgan("vqgan", AddVqgan);

}  // namespace
}  // namespace lwm::app
