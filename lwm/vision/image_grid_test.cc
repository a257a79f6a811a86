#include "lwm/vision/image_grid.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::vision {
namespace {

// An image of 2 x 1 pixels, all of one value.
io::RgbImage Dot(uint8_t value) { return {2, 1, std::vector<uint8_t>(6, value)}; }

std::vector<io::RgbImage> Dots(uint8_t first, uint8_t count) {
  std::vector<io::RgbImage> dots;
  for (uint8_t i = 0; i < count; ++i) dots.push_back(Dot(static_cast<uint8_t>(first + i)));
  return dots;
}

// Every pixel's red value, row by row; white as 255.
std::vector<std::vector<int>> Reds(const io::RgbImage& image) {
  std::vector<std::vector<int>> rows(static_cast<size_t>(image.height));
  for (size_t i = 0; i < image.rgb_HWC.size(); i += 3)
    rows[i / 3 / static_cast<size_t>(image.width)].push_back(image.rgb_HWC[i]);
  return rows;
}

TEST(ImageGridTest, ImagesFillRowsOnWhite) {
  const io::RgbImage grid = ImageGrid(Dots(1, 3), {.columns = 2, .padding = 1});
  const std::vector<int> white(7, 255);
  EXPECT_EQ(
      Reds(grid),
      (std::vector<std::vector<int>>{
          white, {255, 1, 1, 255, 2, 2, 255}, white, {255, 3, 3, 255, 255, 255, 255}, white}));
}

TEST(ImageGridTest, FewImagesMakeANarrowGrid) {
  EXPECT_EQ(Reds(ImageGrid(Dots(5, 1), {.columns = 8, .padding = 0})),
            (std::vector<std::vector<int>>{{5, 5}}));
}

TEST(ImageGridTest, PairsStandOverEachOther) {
  const io::RgbImage grid = PairGrid(Dots(1, 3), Dots(11, 3), {.columns = 2, .padding = 1});
  const std::vector<int> white(7, 255);
  EXPECT_EQ(Reds(grid), (std::vector<std::vector<int>>{white,
                                                       {255, 1, 1, 255, 2, 2, 255},
                                                       white,
                                                       {255, 11, 11, 255, 12, 12, 255},
                                                       white,
                                                       white,
                                                       {255, 3, 3, 255, 255, 255, 255},
                                                       white,
                                                       {255, 13, 13, 255, 255, 255, 255},
                                                       white}));
}

TEST(ImageGridTest, UnequalImagesAreRefused) {
  EXPECT_ERROR(ImageGrid({}), kInvalidArgument);
  EXPECT_ERROR(ImageGrid({Dot(1), {1, 1, {0, 0, 0}}}), kInvalidArgument);
  EXPECT_ERROR(ImageGrid(Dots(1, 2), {.columns = 0}), kInvalidArgument);
  EXPECT_ERROR(ImageGrid(Dots(1, 2), {.padding = -1}), kInvalidArgument);
  EXPECT_ERROR(PairGrid(Dots(1, 2), Dots(1, 3)), kInvalidArgument);
  EXPECT_ERROR(PairGrid(Dots(1, 1), {{1, 1, {0, 0, 0}}}), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::vision
