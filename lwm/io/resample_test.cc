#include "lwm/io/resample.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/testing/error_of.h"

namespace lwm::io {
namespace {

RgbImage RandomImage(int64_t width, int64_t height, uint64_t key) {
  RgbImage image{width, height, {}};
  Random random(key);
  for (int64_t i = 0; i < width * height * 3; ++i)
    image.rgb_HWC.push_back(static_cast<uint8_t>(random.Below(256)));
  return image;
}

RgbImage Transposed(const RgbImage& image) {
  RgbImage result{image.height, image.width, std::vector<uint8_t>(image.rgb_HWC.size())};
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      for (int64_t c = 0; c < 3; ++c)
        result.rgb_HWC[static_cast<size_t>((x * image.height + y) * 3 + c)] =
            image.rgb_HWC[static_cast<size_t>((y * image.width + x) * 3 + c)];
  return result;
}

double Kernel(double x) {
  x = std::fabs(x);
  if (x < 1) return 1.5 * x * x * x - 2.5 * x * x + 1;
  return x < 2 ? -0.5 * x * x * x + 2.5 * x * x - 4 * x + 2 : 0;
}

// One row in f64, normalised over the pixels whose centres the widened kernel reaches.
std::vector<double> RowReference(const RgbImage& row, int64_t width) {
  const double scale = static_cast<double>(row.width) / static_cast<double>(width);
  const double widening = std::max(1.0, scale);
  std::vector<double> result;
  for (int64_t x = 0; x < width; ++x) {
    const double center = (static_cast<double>(x) + 0.5) * scale - 0.5;
    double sum = 0, weights = 0;
    for (int64_t i = 0; i < row.width; ++i) {
      const double weight = Kernel((static_cast<double>(i) - center) / widening);
      sum += weight * row.rgb_HWC[static_cast<size_t>(i * 3)];
      weights += weight;
    }
    result.push_back(std::clamp(sum / weights, 0.0, 255.0));
  }
  return result;
}

TEST(ResampleTest, RowsAreTheWidenedBicubicAtEverySize) {
  for (const int64_t from : {1, 2, 3, 17, 50}) {
    const RgbImage row = RandomImage(from, 1, static_cast<uint64_t>(from));
    for (const int64_t to : {1, 2, 5, 16, 33, 120}) {
      const RgbImage resized = ResizeBicubic(row, to, 1);
      const auto expected = RowReference(row, to);
      ASSERT_EQ(resized.width, to);
      for (int64_t x = 0; x < to; ++x)
        ASSERT_NEAR(resized.rgb_HWC[static_cast<size_t>(x * 3)], expected[static_cast<size_t>(x)],
                    0.5001)
            << from << " to " << to << " at " << x;
    }
  }
}

RgbImage RowsThenColumns(const RgbImage& image, int64_t width, int64_t height) {
  return ResizeBicubic(ResizeBicubic(image, width, image.height), width, height);
}
RgbImage ColumnsThenRows(const RgbImage& image, int64_t width, int64_t height) {
  return ResizeBicubic(ResizeBicubic(image, image.width, height), width, height);
}

TEST(ResampleTest, ColumnsAreResizedAsRowsAre) {
  const RgbImage image = RandomImage(23, 9, 7);
  EXPECT_EQ(Transposed(ResizeBicubic(image, 11, 9)).rgb_HWC,
            ResizeBicubic(Transposed(image), 9, 11).rgb_HWC);
}

// The sizes at which Pillow 13.0.0 was seen to change the order.
TEST(ResampleTest, ColumnsGoFirstWhenTheHeightLosesMoreThanTwiceTheWidth) {
  const auto expect = [](int64_t width, int64_t height, int64_t new_width, int64_t new_height,
                         bool columns_first) {
    const RgbImage image = RandomImage(width, height, 5);
    const auto rows = RowsThenColumns(image, new_width, new_height).rgb_HWC;
    const auto columns = ColumnsThenRows(image, new_width, new_height).rgb_HWC;
    ASSERT_NE(rows, columns);
    EXPECT_EQ(ResizeBicubic(image, new_width, new_height).rgb_HWC, columns_first ? columns : rows)
        << width << " x " << height << " to " << new_width << " x " << new_height;
  };
  expect(60, 60, 54, 47, true);
  expect(60, 60, 54, 48, false);
  expect(60, 240, 18, 155, true);
  expect(60, 240, 18, 156, false);
  expect(63, 69, 66, 42, true);   // wider, lower
  expect(20, 33, 48, 79, false);  // enlarged
}

TEST(ResampleTest, SameSizeIsTheSameImage) {
  const RgbImage image = RandomImage(8, 5, 3);
  EXPECT_EQ(ResizeBicubic(image, 8, 5).rgb_HWC, image.rgb_HWC);
}

TEST(ResampleTest, CropTakesTheMiddleWithHalvesToEven) {
  // Short side 4 stays; of 9, 5 are cut: 2.5 at the left goes to 2. Of 7, 3 are cut: 1.5 goes to 2.
  for (const auto& [width, left] : {std::pair<int64_t, int64_t>{9, 2}, {7, 2}, {8, 2}, {4, 0}}) {
    const RgbImage image = RandomImage(width, 4, 11);
    const RgbImage cropped = ResizeAndCrop(image, 4);
    ASSERT_EQ(cropped.width, 4);
    ASSERT_EQ(cropped.height, 4);
    EXPECT_TRUE(std::equal(cropped.rgb_HWC.begin(), cropped.rgb_HWC.begin() + 12,
                           image.rgb_HWC.begin() + left * 3))
        << width;
  }
}

TEST(ResampleTest, OnePixelBecomesAnEvenFrame) {
  const RgbImage frame = ResizeAndCrop({1, 1, {10, 20, 30}}, 16);
  ASSERT_EQ(frame.rgb_HWC.size(), 16u * 16 * 3);
  for (size_t i = 0; i < frame.rgb_HWC.size(); ++i) ASSERT_EQ(frame.rgb_HWC[i], 10 * (1 + i % 3));
}

TEST(ResampleTest, EmptyAndAbsurdlyLongImagesAreRefused) {
  EXPECT_ERROR(ResizeAndCrop(RgbImage{}, 16), kInvalidArgument);
  EXPECT_ERROR(ResizeBicubic({1, 1, {1, 2, 3}}, 0, 4), kInvalidArgument);
  try {
    ResizeAndCrop(RandomImage(1000, 1, 1), 256, "thin.png");
    ADD_FAILURE() << "256,000 pixels wide";
  } catch (const Error& error) {
    EXPECT_EQ(std::string(error.what()).find("thin.png: 1000 x 1 pixels"), 0u) << error.what();
  }
}

}  // namespace
}  // namespace lwm::io
