#pragma once

#include <ATen/core/Tensor.h>

#include <cstdint>

namespace lwm::vision {

// How near images are to their originals. Images are [N,H,W,3] of a float type with values in
// [0,1] (values beyond are taken as they are); arithmetic is f64. All functions throw
// Error(kInvalidArgument) when shapes differ or are not [N,H,W,3], or N is 0.

// Peak signal-to-noise ratio in dB of every image, f64 [N]: -10 log10(m), m the mean of
// (a - b)^2 over H, W and RGB. Equal images count as m = 1e-10, 100 dB.
at::Tensor Psnr(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC);

// Structural similarity of every image, f64 [N]: the mean over RGB and positions of
// (2 ma mb + c1)(2 sab + c2) / ((ma^2 + mb^2 + c1)(saa + sbb + c2)), c1 = 0.01^2, c2 = 0.03^2,
// means m and (co)variances s under an 11 x 11 Gaussian window of sigma 1.5 that lies wholly inside
// the image (Wang et al. 2004). H, W >= 11. Accuracy: 1e-12.
at::Tensor Ssim(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC);

// Means over the images; `psnr_db` is the mean of the images' PSNR, not the PSNR of their mean
// square error (which is lower).
struct ImageQuality {
  double psnr_db = 0, ssim = 0;
};
ImageQuality MeanQuality(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC);

// The simplest codec, as a baseline: averages over boxes x boxes equal boxes, enlarged again
// bilinearly (pixel centres at half-integers, clamped at the edges). Same shape and dtype. H and W
// must be multiples of `boxes`.
at::Tensor BoxAverages(const at::Tensor& images_NHWC, int64_t boxes);

}  // namespace lwm::vision
