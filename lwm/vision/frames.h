#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <vector>

#include "lwm/io/image.h"

namespace lwm::vision {

// Images of one size as f32 [N,H,W,3], x / 127.5 - 1.
// Throws Error(kInvalidArgument) when there is none or sizes differ.
at::Tensor TensorOfFrames(const std::vector<io::RgbImage>& frames);

// The reverse: clipped to [-1, 1], (x + 1) * 127.5 cut to whole numbers as the published code does.
// `images_NHWC` is of a float type. Throws Error(kInvalidArgument) on another shape.
std::vector<io::RgbImage> FramesOfTensor(const at::Tensor& images_NHWC);

}  // namespace lwm::vision
