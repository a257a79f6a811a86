#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/config/vqgan_config.h"
#include "lwm/vision/vqgan_weights.h"

namespace lwm::vision {

// Images as codes and back. Group norms have eps 1e-6; going down the image is padded by one
// row and column at the bottom and right before a 3x3 convolution of stride 2; going up it is
// doubled by repetition before a 3x3 convolution. Holds the weights in the dtype of its arithmetic;
// safe to use from many threads. When no weight requires gradients (and the dtype is not f64) they
// are copied into forms that run faster (FrozenConv), and nothing is differentiable.
//
//   images   f32 [N,H,W,3]   in [-1, 1] (x / 127.5 - 1)
//   latents  f32 [N,h,w,C]   after quant_conv; h = floor(H / Reduction()), w likewise
//   codes    i32 [N,h,w]     row of the codebook
//
// Memory: proportional to N; the largest buffers are [N,H,W,channels of the finest level].
// Accuracy: f32 within 1e-4 (latents) and 1e-3 (images) of f64 for published weights; in bf16 codes
// may differ where two rows are almost equally near.
class Vqgan {
 public:
  // `dtype` is f32, bf16 or (for references) f64. Throws Error(kInvalidArgument) naming the weight
  // that is missing or has another shape than the config says.
  Vqgan(config::VqganConfig config, VqganWeights weights, at::ScalarType dtype);

  const config::VqganConfig& config() const { return config_; }
  at::ScalarType dtype() const { return dtype_; }

  // Throws Error(kInvalidArgument) when the shape is wrong, a side is below Reduction(), or pixels
  // are not finite. N = 0 is allowed here and below.
  at::Tensor Latents(const at::Tensor& images_NHWC) const;

  // The nearest row by |z|^2 + |e|^2 - 2 z.e in f32, the lowest index among equals. Works on blocks
  // of latents: never more than 1024 x codes distances at once.
  at::Tensor Quantise(const at::Tensor& latents_NhwC) const;

  at::Tensor Encode(const at::Tensor& images_NHWC) const { return Quantise(Latents(images_NHWC)); }

  // Images of [h * Reduction(), w * Reduction()], not clipped. Codes may be of any integer type.
  // Throws Error(kInvalidArgument) naming a code that the codebook does not have.
  at::Tensor Decode(const at::Tensor& codes_Nhw) const;

  // The same from latents: rows of the codebook or, in training, their straight-through form,
  // [N,h,w,C] of a float type, N >= 1. Latents and this are differentiable in their inputs and the
  // weights given, if any of these requires gradients.
  at::Tensor DecodeLatents(const at::Tensor& latents_NhwC) const;

  // Checks codes as Decode does, and throws as it does.
  void RequireCodes(const at::Tensor& codes_Nhw) const;

 private:
  at::Tensor RunEncoder(at::Tensor x_NCHW) const;
  at::Tensor RunDecoder(at::Tensor x_NCHW) const;
  at::Tensor Resnet(const ResnetWeights& block, const at::Tensor& x_NCHW) const;
  at::Tensor NormSilu(const NormWeights& norm, const at::Tensor& x_NCHW) const;
  void Freeze();

  config::VqganConfig config_;
  VqganWeights weights_;
  at::Tensor codebook_VC_, codebook_norm_V_;  // f32 (f64 for f64): rows and their squared lengths
  at::ScalarType dtype_;
};

}  // namespace lwm::vision
