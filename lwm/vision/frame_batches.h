#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <optional>
#include <vector>

#include "lwm/io/image.h"
#include "lwm/vision/vqgan.h"

namespace lwm::vision {

// Any number of frames through a VQGAN, 16 at a time: besides the result only one batch is in
// memory.

// Codes i32 [N,h,w] of images f32 [N,H,W,3].
at::Tensor EncodeInBatches(const Vqgan& vqgan, const at::Tensor& images_NHWC);

// Images f32 [N,H,W,3] of codes [N,h,w], not clipped.
at::Tensor DecodeInBatches(const Vqgan& vqgan, const at::Tensor& codes_Nhw);
// The same of codes [N,n] of square frames.
at::Tensor DecodeFrames(const Vqgan& vqgan, const at::Tensor& codes_Nn);

// The next frame of a stream, or nothing at the end.
using NextFrame = std::function<std::optional<io::RgbImage>()>;

// Codes i32 [N,h,w] of the frames that `next` gives, all of one size; it is called on another
// thread while the batch before is encoded, and never after its end. Throws Error(kInvalidArgument)
// when there are none, and what `next` throws.
at::Tensor EncodeStream(const Vqgan& vqgan, const NextFrame& next);

// The next frames of a stream, `count` or as many as are left.
std::vector<io::RgbImage> TakeFrames(const NextFrame& next, int64_t count);

}  // namespace lwm::vision
