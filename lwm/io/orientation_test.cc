#include "lwm/io/orientation.h"

#include <gtest/gtest.h>

#include <vector>

namespace lwm::io {
namespace {

// 3 x 2 pixels; a row of digits is its red values.
RgbImage Image() {
  RgbImage image{3, 2, {}};
  for (uint8_t value = 1; value <= 6; ++value)
    image.rgb_HWC.insert(image.rgb_HWC.end(), {value, 0, 9});
  return image;
}

std::vector<int> Turned(int orientation) {
  const RgbImage image = TurnUpright(Image(), static_cast<Orientation>(orientation));
  EXPECT_EQ(image.width, orientation < 5 ? 3 : 2);
  EXPECT_EQ(image.height, orientation < 5 ? 2 : 3);
  std::vector<int> reds;
  for (size_t i = 0; i < image.rgb_HWC.size(); i += 3) reds.push_back(image.rgb_HWC[i]);
  return reds;
}

TEST(OrientationTest, PixelsGoWhereExifSays) {
  EXPECT_EQ(Turned(1), (std::vector{1, 2, 3, 4, 5, 6}));
  EXPECT_EQ(Turned(2), (std::vector{3, 2, 1, 6, 5, 4}));
  EXPECT_EQ(Turned(3), (std::vector{6, 5, 4, 3, 2, 1}));
  EXPECT_EQ(Turned(4), (std::vector{4, 5, 6, 1, 2, 3}));
  EXPECT_EQ(Turned(5), (std::vector{1, 4, 2, 5, 3, 6}));
  EXPECT_EQ(Turned(6), (std::vector{4, 1, 5, 2, 6, 3}));
  EXPECT_EQ(Turned(7), (std::vector{6, 3, 5, 2, 4, 1}));
  EXPECT_EQ(Turned(8), (std::vector{3, 6, 2, 5, 1, 4}));
}

}  // namespace
}  // namespace lwm::io
