#include "frame_sink.h"

#include <ATen/ATen.h>

#include <filesystem>
#include <optional>
#include <utility>

#include "image_folder.h"
#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/io/image_file.h"
#include "lwm/io/safetensors_rows.h"
#include "lwm/io/video_writer.h"
#include "lwm/vision/frames.h"

namespace lwm::app {
namespace {
namespace fs = std::filesystem;

class TensorSink final : public FrameSink {
 public:
  explicit TensorSink(std::string path) : path_(std::move(path)) {}
  void Add(const at::Tensor& images_NHWC) override {
    if (!rows_) {
      const std::vector<int64_t> row = images_NHWC.sizes().slice(1).vec();
      rows_.emplace(path_, std::vector<io::TensorInfo>{{"images", io::DType::kF32, row}});
    }
    rows_->Append(0, checkpoint::TensorBytes(images_NHWC.to(at::kFloat).contiguous()));
  }
  void Finish() override { rows_.value().Finish(); }

 private:
  std::string path_;
  std::optional<io::SafetensorsRows> rows_;
};

class VideoSink final : public FrameSink {
 public:
  VideoSink(const std::string& path, double rate) : writer_(io::MakeVideoWriter(path, rate)) {}
  void Add(const at::Tensor& images_NHWC) override {
    for (const auto& frame : vision::FramesOfTensor(images_NHWC)) writer_->Add(frame);
  }
  void Finish() override { writer_->Finish(); }

 private:
  std::unique_ptr<io::VideoWriter> writer_;
};

class PngSink final : public FrameSink {
 public:
  explicit PngSink(fs::path path) : path_(std::move(path)) {
    RequireWritableFolder(path_.parent_path());
  }
  void Add(const at::Tensor& images_NHWC) override {
    for (const auto& frame : vision::FramesOfTensor(images_NHWC)) io::WritePng(path_, frame);
  }
  void Finish() override {}

 private:
  fs::path path_;
};

class FolderSink final : public FrameSink {
 public:
  FolderSink(const fs::path& path, int64_t frames) : folder_(path, /*digits=*/6, frames) {}
  void Add(const at::Tensor& images_NHWC) override {
    for (const auto& frame : vision::FramesOfTensor(images_NHWC)) folder_.Add(frame);
  }
  void Finish() override {}

 private:
  ImageFolder folder_;
};

}  // namespace

std::unique_ptr<FrameSink> MakeFrameSink(const std::string& path, int64_t frames, double rate) {
  const std::string extension = fs::path(path).extension().string();
  if (extension == ".safetensors") return std::make_unique<TensorSink>(path);
  LWM_REQUIRE(frames > 0, path, ": there are no frames to show");
  if (io::IsWritableVideoName(path)) {
    RequireWritableFolder(fs::path(path).parent_path());
    return std::make_unique<VideoSink>(path, rate);
  }
  LWM_REQUIRE(extension == ".png" || extension.empty(), path,
              ": want a name that ends in .safetensors, .png, .mp4 or .gif, or a folder for PNGs");
  LWM_REQUIRE(extension.empty() || frames == 1, path, ": one PNG cannot hold ", frames,
              " frames; name a folder, an .mp4 or a .gif");
  if (extension.empty()) return std::make_unique<FolderSink>(path, frames);
  return std::make_unique<PngSink>(path);
}

}  // namespace lwm::app
