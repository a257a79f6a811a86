#include "lwm/vision/picture_grid.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

constexpr uint8_t kWhite = 255;

void RequireGrid(const std::vector<io::RgbImage>& pictures, const GridOptions& options) {
  LWM_REQUIRE(!pictures.empty(), "a grid of no pictures");
  LWM_REQUIRE(options.columns >= 1 && options.padding >= 0, "a grid of ", options.columns,
              " columns, ", options.padding, " pixels apart; want at least 1 and 0");
  for (size_t i = 0; i < pictures.size(); ++i)
    LWM_REQUIRE(pictures[i].width == pictures[0].width && pictures[i].height == pictures[0].height,
                "a grid of pictures of one size: picture ", i, " is ", pictures[i].width, " x ",
                pictures[i].height, ", the first ", pictures[0].width, " x ", pictures[0].height);
}

io::RgbImage WhiteImage(int64_t width, int64_t height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), kWhite)};
}

void Paste(const io::RgbImage& picture, int64_t left, int64_t top, io::RgbImage& ground) {
  for (int64_t row = 0; row < picture.height; ++row) {
    const auto source = picture.rgb_HWC.begin() + row * picture.width * 3;
    std::copy(source, source + picture.width * 3,
              ground.rgb_HWC.begin() + ((top + row) * ground.width + left) * 3);
  }
}

}  // namespace

io::RgbImage PictureGrid(const std::vector<io::RgbImage>& pictures, const GridOptions& options) {
  RequireGrid(pictures, options);
  const auto count = static_cast<int64_t>(pictures.size());
  const int64_t columns = std::min(options.columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  const int64_t step_x = pictures[0].width + options.padding;
  const int64_t step_y = pictures[0].height + options.padding;
  io::RgbImage grid =
      WhiteImage(columns * step_x + options.padding, rows * step_y + options.padding);
  for (int64_t i = 0; i < count; ++i)
    Paste(pictures[static_cast<size_t>(i)], options.padding + i % columns * step_x,
          options.padding + i / columns * step_y, grid);
  return grid;
}

io::RgbImage PairGrid(const std::vector<io::RgbImage>& above,
                      const std::vector<io::RgbImage>& below, const GridOptions& options) {
  RequireGrid(above, options);
  RequireGrid(below, options);
  LWM_REQUIRE(above.size() == below.size(), "a grid of pairs: ", above.size(), " pictures over ",
              below.size());
  LWM_REQUIRE(above[0].width == below[0].width && above[0].height == below[0].height,
              "a grid of pairs: pictures of ", above[0].width, " x ", above[0].height, " over ",
              below[0].width, " x ", below[0].height);
  const auto count = static_cast<int64_t>(above.size());
  const int64_t columns = std::min(options.columns, count);
  const int64_t rows = (count + columns - 1) / columns, padding = options.padding;
  const int64_t step_x = above[0].width + padding, down = above[0].height + padding;
  const int64_t step_y = 2 * down + padding;
  io::RgbImage grid = WhiteImage(columns * step_x + padding, rows * step_y);
  for (int64_t i = 0; i < count; ++i) {
    const int64_t left = padding + i % columns * step_x, top = padding + i / columns * step_y;
    Paste(above[static_cast<size_t>(i)], left, top, grid);
    Paste(below[static_cast<size_t>(i)], left, top + down, grid);
  }
  return grid;
}

}  // namespace lwm::vision
