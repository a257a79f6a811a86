#include "lwm/vision/image_quality.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>
#include <cstdlib>
#include <filesystem>
#include <sstream>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/image_file.h"
#include "lwm/testing/error_of.h"
#include "lwm/vision/frames.h"

namespace lwm::vision {
namespace {
namespace fs = std::filesystem;

constexpr int64_t kWindow = 11;

// The value of SSIM by its definition: every window, plane and pixel in turn.
double SsimByDefinition(const at::Tensor& a_HWC, const at::Tensor& b_HWC) {
  const auto a = a_HWC.accessor<double, 3>(), b = b_HWC.accessor<double, 3>();
  std::vector<double> weight;
  double total = 0;
  for (int64_t y = -5; y <= 5; ++y)
    for (int64_t x = -5; x <= 5; ++x)
      weight.push_back(std::exp(-static_cast<double>(x * x + y * y) / 4.5));
  for (const double one : weight) total += one;
  double sum = 0;
  int64_t windows = 0;
  for (int64_t c = 0; c < 3; ++c)
    for (int64_t top = 0; top + kWindow <= a.size(0); ++top)
      for (int64_t left = 0; left + kWindow <= a.size(1); ++left, ++windows) {
        double ma = 0, mb = 0, va = 0, vb = 0, cov = 0;
        const auto each = [&](const auto& visit) {
          for (int64_t i = 0; i < kWindow * kWindow; ++i)
            visit(weight[static_cast<size_t>(i)] / total,
                  a[top + i / kWindow][left + i % kWindow][c],
                  b[top + i / kWindow][left + i % kWindow][c]);
        };
        each([&](double w, double x, double y) { ma += w * x, mb += w * y; });
        each([&](double w, double x, double y) {
          va += w * (x - ma) * (x - ma);
          vb += w * (y - mb) * (y - mb);
          cov += w * (x - ma) * (y - mb);
        });
        sum += (2 * ma * mb + 1e-4) * (2 * cov + 9e-4) /
               ((ma * ma + mb * mb + 1e-4) * (va + vb + 9e-4));
      }
  return sum / static_cast<double>(windows);
}

// The drawings of validation.txt at 64 x 64, in [0,1].
at::Tensor HeldOutDrawings() {
  const char* root = std::getenv("LWM_SOURCE_DIR");
  const fs::path folder = fs::path(root ? root : ".") / "samples/clipart";
  std::vector<io::RgbImage> drawings;
  std::istringstream names(ReadFile(folder / "validation.txt"));
  for (std::string name; names >> name;) drawings.push_back(io::ReadImage(folder / name));
  const at::Tensor whole = (TensorOfFrames(drawings) + 1) / 2;
  return at::avg_pool2d(whole.permute({0, 3, 1, 2}), {2, 2}).permute({0, 2, 3, 1}).contiguous();
}

TEST(ImageQualityTest, PsnrIsTheMeanOverImagesInDecibels) {
  const at::Tensor a = at::zeros({2, 3, 5, 3});
  at::Tensor b = a.clone();
  b[0].fill_(0.1);
  b[1][0][0][0] = 1;
  const at::Tensor psnr_N = Psnr(a, b);
  EXPECT_EQ(psnr_N.scalar_type(), at::kDouble);
  EXPECT_NEAR(psnr_N[0].item<double>(), 20, 1e-6);
  EXPECT_NEAR(psnr_N[1].item<double>(), 10 * std::log10(45), 1e-9);
}

TEST(ImageQualityTest, EqualImagesScoreTheMost) {
  const at::Tensor a = at::rand({2, 12, 13, 3});
  const ImageQuality quality = MeanQuality(a, a);
  EXPECT_DOUBLE_EQ(quality.psnr_db, 100);
  EXPECT_NEAR(quality.ssim, 1, 1e-12);
}

TEST(ImageQualityTest, SsimFollowsItsDefinition) {
  for (const auto& [height, width] : {std::pair<int64_t, int64_t>{11, 11}, {14, 12}, {17, 23}}) {
    const at::Tensor a = at::rand({2, height, width, 3}, at::kDouble);
    const at::Tensor b = (a + 0.2 * at::randn_like(a)).clamp(0, 1);
    const at::Tensor ssim_N = Ssim(a, b);
    for (int64_t i = 0; i < 2; ++i)
      EXPECT_NEAR(ssim_N[i].item<double>(), SsimByDefinition(a[i], b[i]), 1e-12)
          << height << " x " << width;
  }
}

TEST(ImageQualityTest, BaselinesOfTheHeldOutDrawingsAreAsPublished) {
  const at::Tensor drawings = HeldOutDrawings();
  ASSERT_EQ(drawings.sizes(), (at::IntArrayRef{65, 64, 64, 3}));
  const auto expect = [&](const at::Tensor& copy, double psnr_db, double ssim) {
    const ImageQuality quality = MeanQuality(drawings, copy);
    EXPECT_NEAR(quality.psnr_db, psnr_db, 0.005);
    EXPECT_NEAR(quality.ssim, ssim, 0.0005);
  };
  expect(at::ones_like(drawings), 13.31, 0.540);
  expect(BoxAverages(drawings, 8), 17.83, 0.563);
  expect(BoxAverages(drawings, 16), 20.15, 0.701);
}

TEST(ImageQualityTest, BoxAveragesKeepTheMeanAndAreExactAtFullSize) {
  const at::Tensor images = at::rand({1, 6, 9, 3});
  const at::Tensor one = BoxAverages(images, 1);
  EXPECT_TRUE(at::allclose(one, images.mean({1, 2}, true).expand_as(images), 1e-5, 1e-6));
  const at::Tensor square = at::rand({2, 8, 8, 3});
  EXPECT_TRUE(at::allclose(BoxAverages(square, 8), square, 0, 1e-6));
}

TEST(ImageQualityTest, ImagesThatDoNotFitAreRefused) {
  const at::Tensor image = at::rand({1, 12, 12, 3});
  EXPECT_ERROR(Psnr(image, at::rand({1, 12, 13, 3})), kInvalidArgument);
  EXPECT_ERROR(Psnr(image[0], image[0]), kInvalidArgument);
  EXPECT_ERROR(Psnr(at::empty({0, 12, 12, 3}), at::empty({0, 12, 12, 3})), kInvalidArgument);
  EXPECT_ERROR(Ssim(at::rand({1, 10, 12, 3}), at::rand({1, 10, 12, 3})), kInvalidArgument);
  EXPECT_ERROR(BoxAverages(image, 5), kInvalidArgument);
  EXPECT_ERROR(BoxAverages(image, 0), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::vision
