#include "lwm/vision/image_quality.h"

#include <ATen/ATen.h>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

constexpr int64_t kWindow = 11;
constexpr double kSigma = 1.5;
constexpr double kLeastError = 1e-10;

void RequireImages(const char* what, const at::Tensor& images) {
  LWM_REQUIRE(images.dim() == 4 && images.size(3) == 3 && images.is_floating_point(), what,
              ": want images [N,H,W,3] of a float type, got ", images.sizes(), " ",
              images.scalar_type());
  LWM_REQUIRE(images.numel() > 0, what, ": there are no images");
}

void RequirePairs(const char* what, const at::Tensor& a, const at::Tensor& b) {
  RequireImages(what, a);
  RequireImages(what, b);
  LWM_REQUIRE(a.sizes() == b.sizes(), what, ": images ", a.sizes(), " against ", b.sizes());
}

at::Tensor GaussianWindow() {
  const at::Tensor offset = at::arange(kWindow, at::kDouble) - (kWindow - 1) / 2;
  const at::Tensor window = at::exp(-offset.square() / (2 * kSigma * kSigma));
  return window / window.sum();
}

// Weighted means under every window that fits, one axis after the other; x is [P,1,H,W].
at::Tensor WindowMeans(const at::Tensor& x, const at::Tensor& window) {
  const at::Tensor rows = at::conv2d(x, window.view({1, 1, kWindow, 1}));
  return at::conv2d(rows, window.view({1, 1, 1, kWindow}));
}

// Of one image's planes [3,1,H,W].
at::Tensor MeanSimilarity(const at::Tensor& a, const at::Tensor& b, const at::Tensor& window) {
  constexpr double c1 = 0.01 * 0.01, c2 = 0.03 * 0.03;
  const at::Tensor mean_a = WindowMeans(a, window), mean_b = WindowMeans(b, window);
  const at::Tensor var_a = WindowMeans(a * a, window) - mean_a * mean_a;
  const at::Tensor var_b = WindowMeans(b * b, window) - mean_b * mean_b;
  const at::Tensor cov_ab = WindowMeans(a * b, window) - mean_a * mean_b;
  const at::Tensor luminance =
      (2 * mean_a * mean_b + c1) / (mean_a * mean_a + mean_b * mean_b + c1);
  return (luminance * (2 * cov_ab + c2) / (var_a + var_b + c2)).mean();
}

at::Tensor Planes(const at::Tensor& image_HWC) {
  return image_HWC.to(at::kDouble).permute({2, 0, 1}).unsqueeze(1).contiguous();
}

}  // namespace

at::Tensor Psnr(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
  RequirePairs("PSNR", a_NHWC, b_NHWC);
  const at::Tensor error_NHWC = a_NHWC.detach().to(at::kDouble) - b_NHWC.detach().to(at::kDouble);
  return error_NHWC.square().mean({1, 2, 3}).clamp_min(kLeastError).log10().mul(-10);
}

at::Tensor Ssim(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
  RequirePairs("SSIM", a_NHWC, b_NHWC);
  LWM_REQUIRE(a_NHWC.size(1) >= kWindow && a_NHWC.size(2) >= kWindow, "SSIM: images of ",
              a_NHWC.size(2), " x ", a_NHWC.size(1), " pixels are below its window of 11 x 11");
  const at::Tensor a = a_NHWC.detach(), b = b_NHWC.detach();
  const at::Tensor window = GaussianWindow();
  const at::Tensor ssim_N = at::empty({a.size(0)}, at::kDouble);
  // One image at a time: the window means of a whole set in f64 would take many times its memory.
  for (int64_t i = 0; i < a.size(0); ++i)
    ssim_N[i].copy_(MeanSimilarity(Planes(a[i]), Planes(b[i]), window));
  return ssim_N;
}

ImageQuality MeanQuality(const at::Tensor& a_NHWC, const at::Tensor& b_NHWC) {
  return {Psnr(a_NHWC, b_NHWC).mean().item<double>(), Ssim(a_NHWC, b_NHWC).mean().item<double>()};
}

at::Tensor BoxAverages(const at::Tensor& images_NHWC, int64_t boxes) {
  RequireImages("box averages", images_NHWC);
  const int64_t height = images_NHWC.size(1), width = images_NHWC.size(2);
  LWM_REQUIRE(boxes >= 1 && height % boxes == 0 && width % boxes == 0, "box averages: ", width,
              " x ", height, " pixels do not divide into ", boxes, " x ", boxes, " boxes");
  const at::Tensor boxes_NCHW = at::avg_pool2d(images_NHWC.permute({0, 3, 1, 2}).contiguous(),
                                               {height / boxes, width / boxes});
  return at::upsample_bilinear2d(boxes_NCHW, {height, width}, /*align_corners=*/false)
      .permute({0, 2, 3, 1})
      .contiguous();
}

}  // namespace lwm::vision
