#include "lwm/vision_train/augment.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <map>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::vision_train {
namespace {

io::RgbImage Noise(int64_t side, uint64_t seed) {
  Random random(seed);
  io::RgbImage image{side, side, {}};
  for (int64_t i = 0; i < side * side * 3; ++i)
    image.rgb_HWC.push_back(static_cast<uint8_t>(random.Below(256)));
  return image;
}

std::vector<float> Warped(const io::RgbImage& source, const Warp& warp) {
  const int64_t size = source.width / 2;
  std::vector<float> out(static_cast<size_t>(size * size * 3));
  ApplyWarp(source, warp, size, out.data());
  return out;
}

// The value of a source pixel in [0,1] after gamma; white outside.
double SourceValue(const io::RgbImage& source, double gamma, int64_t x, int64_t y, int channel) {
  if (x < 0 || y < 0 || x >= source.width || y >= source.height) return 1;
  return std::pow(source.rgb_HWC[static_cast<size_t>((y * source.width + x) * 3 + channel)] / 255.0,
                  gamma);
}

double Bilinear(const io::RgbImage& source, double gamma, double x, double y, int channel) {
  const double left = std::floor(x), top = std::floor(y);
  double sum = 0;
  for (const int dx : {0, 1})
    for (const int dy : {0, 1})
      sum += (dx ? x - left : 1 - x + left) * (dy ? y - top : 1 - y + top) *
             SourceValue(source, gamma, static_cast<int64_t>(left) + dx,
                         static_cast<int64_t>(top) + dy, channel);
  return sum;
}

// The definition: the mean of 2 x 2 samples of every pixel, one at a time, in f64.
double PixelByDefinition(const io::RgbImage& source, const Warp& warp, int64_t x, int64_t y,
                         size_t c) {
  const double side = static_cast<double>(source.width) / 2;
  double sum = 0;
  for (const double dx : {0.25, 0.75})
    for (const double dy : {0.25, 0.75}) {
      const double across =
          (static_cast<double>(x) + dx - side * (0.5 + warp.shift_x)) / warp.zoom_x;
      const double down = (static_cast<double>(y) + dy - side * (0.5 + warp.shift_y)) / warp.zoom_y;
      sum += Bilinear(source, warp.gamma, 2 * (side / 2 + (warp.flip ? -across : across)) - 0.5,
                      2 * (side / 2 + down) - 0.5, warp.channels[c]);
    }
  return sum / 2 - 1;
}

TEST(AugmentTest, WarpsFollowTheirDefinition) {
  Random random(7);
  const AugmentOptions strong = {0.5, 2, 1.5, 0.4, 1, 0.5};
  for (const int64_t size : {1, 2, 5, 16}) {
    const io::RgbImage source = Noise(2 * size, 3);
    for (int i = 0; i < 10; ++i) {
      const Warp warp = DrawWarp(strong, random);
      const std::vector<float> out = Warped(source, warp);
      for (size_t p = 0; p < out.size(); ++p) {
        const auto pixel = static_cast<int64_t>(p / 3);
        EXPECT_NEAR(out[p], PixelByDefinition(source, warp, pixel % size, pixel / size, p % 3),
                    1e-6);
      }
    }
  }
}

TEST(AugmentTest, NoChangeGivesTwoByTwoAverages) {
  Random random(1);
  const io::RgbImage source = Noise(10, 4);
  const std::vector<float> out = Warped(source, DrawWarp(AugmentOptions::None(), random));
  for (size_t y = 0; y < 5; ++y)
    for (size_t x = 0; x < 5; ++x)
      for (size_t c = 0; c < 3; ++c) {
        const size_t first = (2 * y * 10 + 2 * x) * 3 + c;
        const int sum = source.rgb_HWC[first] + source.rgb_HWC[first + 3] +
                        source.rgb_HWC[first + 30] + source.rgb_HWC[first + 33];
        EXPECT_NEAR(out[(y * 5 + x) * 3 + c], sum / 510.0 - 1, 1e-6);
      }
}

TEST(AugmentTest, WhiteStaysWhite) {
  Random random(2);
  const io::RgbImage white{32, 32, std::vector<uint8_t>(32 * 32 * 3, 255)};
  for (int i = 0; i < 50; ++i)
    for (const float value : Warped(white, DrawWarp(AugmentOptions(), random)))
      ASSERT_EQ(value, 1.0F);
}

TEST(AugmentTest, ShiftMovesRightAndDownAndLeavesWhite) {
  io::RgbImage source{8, 8, std::vector<uint8_t>(8 * 8 * 3, 0)};
  Warp warp;
  warp.shift_x = 0.25;
  warp.shift_y = 0.5;
  const std::vector<float> out = Warped(source, warp);
  for (size_t y = 0; y < 4; ++y)
    for (size_t x = 0; x < 4; ++x)
      EXPECT_EQ(out[(y * 4 + x) * 3], x < 1 || y < 2 ? 1.0F : -1.0F) << x << " " << y;
}

TEST(AugmentTest, DrawsStayInTheirRangesAndReachThem) {
  Random random(11);
  const AugmentOptions options;
  constexpr int kDraws = 20000;
  int flips = 0;
  std::map<std::array<int, 3>, int> orders;
  double least_area = 9, most_area = 0, most_stretch = 0, most_shift = 0, least_gamma = 9;
  for (int i = 0; i < kDraws; ++i) {
    const Warp warp = DrawWarp(options, random);
    flips += warp.flip;
    ++orders[warp.channels];
    const double zoom = std::sqrt(warp.zoom_x * warp.zoom_y);
    least_area = std::min(least_area, zoom);
    most_area = std::max(most_area, zoom);
    most_stretch = std::max(most_stretch, warp.zoom_x / warp.zoom_y);
    most_shift = std::max({most_shift, warp.shift_x, -warp.shift_y});
    least_gamma = std::min(least_gamma, warp.gamma);
  }
  EXPECT_NEAR(flips, kDraws / 2, 300);
  ASSERT_EQ(orders.size(), 6u);
  const std::array<int, 3> same = {0, 1, 2};
  for (const auto& [order, count] : orders)
    EXPECT_NEAR(count, kDraws * (order == same ? 0.75 : 0.05), 250);
  EXPECT_NEAR(least_area, 0.8, 0.001);
  EXPECT_NEAR(most_area, 1.25, 0.001);
  EXPECT_NEAR(most_stretch, 1.1, 0.001);
  EXPECT_NEAR(most_shift, 0.1, 0.001);
  EXPECT_NEAR(least_gamma, std::exp(-0.35), 0.001);
}

TEST(AugmentTest, EveryDrawTakesAsManyNumbers) {
  Random some(5), none(5);
  for (int i = 0; i < 20; ++i) {
    DrawWarp(AugmentOptions(), some);
    DrawWarp(AugmentOptions::None(), none);
    ASSERT_EQ(some.counter(), none.counter());
  }
}

TEST(AugmentTest, OptionsOutOfRangeAreNamed) {
  const auto message = [](AugmentOptions options) -> std::string {
    try {
      options.Validate();
    } catch (const Error& error) {
      return error.what();
    }
    return "accepted";
  };
  EXPECT_EQ(message({}), "accepted");
  EXPECT_EQ(message(AugmentOptions::None()), "accepted");
  EXPECT_NE(message({.flip = 1.5}).find("flip"), std::string::npos);
  EXPECT_NE(message({.scale = 0.8}).find("scale"), std::string::npos);
  EXPECT_NE(message({.shift = -0.1}).find("shift"), std::string::npos);
  EXPECT_NE(message({.gamma = std::nan("")}).find("gamma"), std::string::npos);
}

}  // namespace
}  // namespace lwm::vision_train
