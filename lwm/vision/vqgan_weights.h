#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>
#include <functional>
#include <memory>
#include <string>
#include <vector>

#include "lwm/config/vqgan_config.h"
#include "lwm/vision/frozen_conv.h"

namespace lwm::vision {

struct ConvWeights {
  at::Tensor weight_OIHW, bias_O;
  std::shared_ptr<const FrozenConv> frozen;  // stands for both where a model is for inference only

  bool defined() const { return weight_OIHW.defined() || frozen; }
};

struct NormWeights {
  at::Tensor scale_C, bias_C;
};

// x + conv2(silu(norm2(conv1(silu(norm1(x)))))); x passes a 1x1 shortcut when widths differ.
struct ResnetWeights {
  NormWeights norm1, norm2;
  ConvWeights conv1, conv2;
  ConvWeights shortcut;  // undefined tensors when the widths are equal
};

// One level: its residual blocks, then the convolution that halves or doubles the image.
struct LevelWeights {
  std::vector<ResnetWeights> resnets;
  ConvWeights resample;  // undefined tensors in the last level
};

// One side of the model. The encoder runs levels then middle, the decoder middle then levels.
struct PyramidWeights {
  ConvWeights conv_in, conv_out;
  std::vector<LevelWeights> levels;  // in order of use: finest first down, coarsest first up
  std::vector<ResnetWeights> middle;
  NormWeights norm_out;
};

struct VqganWeights {
  PyramidWeights encoder, decoder;
  ConvWeights quant_conv, post_quant_conv;
  at::Tensor codebook_VC;
};

// One weight of a model: its name in diffusers' files and its shape there (convolutions OIHW).
struct VqganSpec {
  std::string name;
  std::vector<int64_t> shape;
};

// Calls `visit` for every weight that the config asks for, in diffusers' order; builds the lists of
// levels and blocks in `weights` on the way, so an empty struct may be filled.
void ForEachWeight(const config::VqganConfig& config, VqganWeights& weights,
                   const std::function<void(const VqganSpec& spec, at::Tensor& weight)>& visit);

// The specs alone.
std::vector<VqganSpec> VqganSpecs(const config::VqganConfig& config);

// Weights drawn as PyTorch initialises such a model: convolutions uniform within 1/sqrt(fan in),
// norms at 1 and 0, the codebook uniform within 1/codes. f32, a pure function of the seed.
VqganWeights RandomVqganWeights(const config::VqganConfig& config, uint64_t seed);

}  // namespace lwm::vision
