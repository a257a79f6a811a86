#include "lwm/vision/frame_batches.h"

#include <ATen/ATen.h>

#include <cmath>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/base/prefetch.h"
#include "lwm/vision/frames.h"

namespace lwm::vision {
namespace {

constexpr int64_t kFramesAtOnce = 16;

}  // namespace

at::Tensor EncodeInBatches(const Vqgan& vqgan, const at::Tensor& images_NHWC) {
  std::vector<at::Tensor> codes;
  for (const at::Tensor& part : images_NHWC.split(kFramesAtOnce))
    codes.push_back(vqgan.Encode(part));
  return at::cat(codes);
}

at::Tensor DecodeInBatches(const Vqgan& vqgan, const at::Tensor& codes_Nhw) {
  std::vector<at::Tensor> images;
  for (const at::Tensor& part : codes_Nhw.split(kFramesAtOnce))
    images.push_back(vqgan.Decode(part));
  return at::cat(images);
}

at::Tensor DecodeFrames(const Vqgan& vqgan, const at::Tensor& codes_Nn) {
  const int64_t side = std::llround(std::sqrt(static_cast<double>(codes_Nn.size(1))));
  LWM_CHECK(side * side == codes_Nn.size(1), "frames of ", codes_Nn.size(1), " codes");
  return DecodeInBatches(vqgan, codes_Nn.reshape({-1, side, side}));
}

at::Tensor EncodeStream(const Vqgan& vqgan, const NextFrame& next) {
  using Frames = std::vector<io::RgbImage>;
  bool ended = false;
  Prefetch<Frames> batches(
      [&]() -> std::optional<Frames> {
        if (ended) return {};
        Frames frames = TakeFrames(next, kFramesAtOnce);
        ended = static_cast<int64_t>(frames.size()) < kFramesAtOnce;
        if (frames.empty()) return {};
        return frames;
      },
      1);
  std::vector<at::Tensor> codes;
  while (const auto frames = batches.Next()) codes.push_back(vqgan.Encode(TensorOfFrames(*frames)));
  LWM_REQUIRE(!codes.empty(), "there are no frames");
  return at::cat(codes);
}

std::vector<io::RgbImage> TakeFrames(const NextFrame& next, int64_t count) {
  std::vector<io::RgbImage> frames;
  while (static_cast<int64_t>(frames.size()) < count) {
    auto frame = next();
    if (!frame) break;
    frames.push_back(std::move(*frame));
  }
  return frames;
}

}  // namespace lwm::vision
