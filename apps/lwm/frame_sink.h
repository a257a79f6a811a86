#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <memory>
#include <string>

namespace lwm::app {

// Where frames go, batch by batch; nothing of them stays in memory.
class FrameSink {
 public:
  virtual ~FrameSink() = default;
  // images_NHWC: f32 [N,H,W,3], 1 and -1 the ends of the range.
  virtual void Add(const at::Tensor& images_NHWC) = 0;
  virtual void Finish() = 0;
};

// By the name: x.safetensors (`images` f32, not clipped), x.png (one frame), x.mp4, x.gif, or a
// folder of 000000.png, 000001.png ... `frames` are to come, `rate` per second in a moving image.
// Throws Error(kInvalidArgument) on another name or number of frames, on a place that cannot be
// written, and as ImageFolder does.
std::unique_ptr<FrameSink> MakeFrameSink(const std::string& path, int64_t frames, double rate);

}  // namespace lwm::app
