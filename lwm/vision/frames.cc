#include "lwm/vision/frames.h"

#include <ATen/ATen.h>

#include <cstring>

#include "lwm/base/error.h"

namespace lwm::vision {

at::Tensor TensorOfFrames(const std::vector<io::RgbImage>& frames) {
  LWM_REQUIRE(!frames.empty(), "there are no frames");
  const int64_t height = frames[0].height, width = frames[0].width;
  const at::Tensor bytes_NHWC =
      at::empty({static_cast<int64_t>(frames.size()), height, width, 3}, at::kByte);
  for (size_t i = 0; i < frames.size(); ++i) {
    const io::RgbImage& frame = frames[i];
    LWM_REQUIRE(frame.height == height && frame.width == width, "frame ", i, " is ", frame.width,
                " x ", frame.height, ", the first is ", width, " x ", height);
    std::memcpy(bytes_NHWC[static_cast<int64_t>(i)].data_ptr(), frame.rgb_HWC.data(),
                frame.rgb_HWC.size());
  }
  return bytes_NHWC.to(at::kFloat).div_(127.5).sub_(1);
}

std::vector<io::RgbImage> FramesOfTensor(const at::Tensor& images_NHWC) {
  LWM_REQUIRE(images_NHWC.dim() == 4 && images_NHWC.size(3) == 3 && images_NHWC.is_floating_point(),
              "want images [N,H,W,3] of a float type, got ", images_NHWC.sizes(), " ",
              images_NHWC.scalar_type());
  const at::Tensor bytes_NHWC =
      images_NHWC.to(at::kFloat).clamp(-1, 1).add(1).mul_(127.5).to(at::kByte).contiguous();
  std::vector<io::RgbImage> frames;
  for (int64_t i = 0; i < bytes_NHWC.size(0); ++i) {
    const at::Tensor frame_HWC = bytes_NHWC[i];
    const auto* data = frame_HWC.data_ptr<uint8_t>();
    frames.push_back({frame_HWC.size(1), frame_HWC.size(0), {data, data + frame_HWC.numel()}});
  }
  return frames;
}

}  // namespace lwm::vision
