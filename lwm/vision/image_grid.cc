#include "lwm/vision/image_grid.h"

#include <algorithm>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

constexpr uint8_t kWhite = 255;

void RequireGrid(const std::vector<io::RgbImage>& images, const GridOptions& options) {
  LWM_REQUIRE(!images.empty(), "a grid of no images");
  LWM_REQUIRE(options.columns >= 1 && options.padding >= 0, "a grid of ", options.columns,
              " columns, ", options.padding, " pixels apart; want at least 1 and 0");
  for (size_t i = 0; i < images.size(); ++i)
    LWM_REQUIRE(images[i].width == images[0].width && images[i].height == images[0].height,
                "a grid of images of one size: image ", i, " is ", images[i].width, " x ",
                images[i].height, ", the first ", images[0].width, " x ", images[0].height);
}

io::RgbImage WhiteImage(int64_t width, int64_t height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3), kWhite)};
}

void Paste(const io::RgbImage& image, int64_t left, int64_t top, io::RgbImage& ground) {
  for (int64_t row = 0; row < image.height; ++row) {
    const auto source = image.rgb_HWC.begin() + row * image.width * 3;
    std::copy(source, source + image.width * 3,
              ground.rgb_HWC.begin() + ((top + row) * ground.width + left) * 3);
  }
}

}  // namespace

io::RgbImage ImageGrid(const std::vector<io::RgbImage>& images, const GridOptions& options) {
  RequireGrid(images, options);
  const auto count = static_cast<int64_t>(images.size());
  const int64_t columns = std::min(options.columns, count);
  const int64_t rows = (count + columns - 1) / columns;
  const int64_t step_x = images[0].width + options.padding;
  const int64_t step_y = images[0].height + options.padding;
  io::RgbImage grid =
      WhiteImage(columns * step_x + options.padding, rows * step_y + options.padding);
  for (int64_t i = 0; i < count; ++i)
    Paste(images[static_cast<size_t>(i)], options.padding + i % columns * step_x,
          options.padding + i / columns * step_y, grid);
  return grid;
}

io::RgbImage PairGrid(const std::vector<io::RgbImage>& above,
                      const std::vector<io::RgbImage>& below, const GridOptions& options) {
  RequireGrid(above, options);
  RequireGrid(below, options);
  LWM_REQUIRE(above.size() == below.size(), "a grid of pairs: ", above.size(), " images over ",
              below.size());
  LWM_REQUIRE(above[0].width == below[0].width && above[0].height == below[0].height,
              "a grid of pairs: images of ", above[0].width, " x ", above[0].height, " over ",
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
