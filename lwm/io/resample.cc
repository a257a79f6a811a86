#include "lwm/io/resample.h"

#include <algorithm>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::io {
namespace {

// As Pillow's Resample.c, bit for bit: weights as fixed point of 22 bits, so that sums of bytes
// times weights fit in 32.
constexpr int kFractionBits = 22;
constexpr int64_t kMaxSide = 32768;
constexpr double kBicubicA = -0.5;
constexpr double kSupport = 2;

double Bicubic(double x) {
  x = std::fabs(x);
  if (x < 1) return ((kBicubicA + 2) * x - (kBicubicA + 3)) * x * x + 1;
  if (x < 2) return (((x - 5) * x + 8) * x - 4) * kBicubicA;
  return 0;
}

// The source pixels [first, first + weights.size()) that make one result pixel, and their shares.
struct Taps {
  int64_t first;
  std::vector<int32_t> weights;
};

Taps TapsOf(int64_t at, double scale, int64_t in) {
  // Shrinking widens the kernel over the source, as a low-pass; enlarging interpolates with it as
  // it is.
  const double widening = std::max(scale, 1.0);
  const double reach = kSupport * widening, center = (static_cast<double>(at) + 0.5) * scale;
  const int64_t first = std::max<int64_t>(0, static_cast<int64_t>(center - reach + 0.5));
  const int64_t last = std::min(in, static_cast<int64_t>(center + reach + 0.5));
  std::vector<double> shares;
  double sum = 0;
  for (int64_t i = first; i < last; ++i) {
    shares.push_back(Bicubic((static_cast<double>(i) - center + 0.5) * (1 / widening)));
    sum += shares.back();
  }
  Taps taps{first, {}};
  for (const double share : shares) {
    const double fixed = share / sum * (1 << kFractionBits);
    taps.weights.push_back(static_cast<int32_t>(fixed < 0 ? fixed - 0.5 : fixed + 0.5));
  }
  return taps;
}

std::vector<Taps> AllTaps(int64_t in, int64_t out) {
  std::vector<Taps> taps;
  const double scale = static_cast<double>(in) / static_cast<double>(out);
  for (int64_t i = 0; i < out; ++i) taps.push_back(TapsOf(i, scale, in));
  return taps;
}

uint8_t ToByte(int32_t fixed) {
  return static_cast<uint8_t>(std::clamp(fixed >> kFractionBits, 0, 255));
}

// One result pixel from source pixels `stride` bytes apart.
void MixPixel(const uint8_t* source, int64_t stride, const Taps& taps, uint8_t* result) {
  int32_t sum[3];
  std::fill_n(sum, 3, 1 << (kFractionBits - 1));
  source += taps.first * stride;
  for (const int32_t weight : taps.weights) {
    for (int c = 0; c < 3; ++c) sum[c] += source[c] * weight;
    source += stride;
  }
  for (int c = 0; c < 3; ++c) result[c] = ToByte(sum[c]);
}

RgbImage Blank(int64_t width, int64_t height) {
  return {width, height, std::vector<uint8_t>(static_cast<size_t>(width * height * 3))};
}

RgbImage ResizeRows(const RgbImage& image, int64_t width) {
  const std::vector<Taps> taps = AllTaps(image.width, width);
  RgbImage result = Blank(width, image.height);
  for (int64_t y = 0; y < image.height; ++y)
    for (int64_t x = 0; x < width; ++x)
      MixPixel(image.rgb_HWC.data() + y * image.width * 3, 3, taps[static_cast<size_t>(x)],
               result.rgb_HWC.data() + (y * width + x) * 3);
  return result;
}

RgbImage ResizeColumns(const RgbImage& image, int64_t height) {
  const std::vector<Taps> taps = AllTaps(image.height, height);
  RgbImage result = Blank(image.width, height);
  for (int64_t y = 0; y < height; ++y)
    for (int64_t x = 0; x < image.width; ++x)
      MixPixel(image.rgb_HWC.data() + x * 3, image.width * 3, taps[static_cast<size_t>(y)],
               result.rgb_HWC.data() + (y * image.width + x) * 3);
  return result;
}

void RequireSound(const RgbImage& image) {
  LWM_REQUIRE(image.width > 0 && image.height > 0, "an image without pixels cannot be resized");
  LWM_CHECK(image.rgb_HWC.size() == static_cast<size_t>(image.width * image.height * 3),
            "image of ", image.width, " x ", image.height, " has ", image.rgb_HWC.size(), " bytes");
}

// (whole - part) / 2, halves to the even neighbour.
int64_t Margin(int64_t whole, int64_t part) {
  const int64_t twice = whole - part, half = twice / 2;
  return twice % 2 != 0 && half % 2 != 0 ? half + 1 : half;
}

}  // namespace

RgbImage ResizeBicubic(const RgbImage& image, int64_t width, int64_t height) {
  RequireSound(image);
  LWM_REQUIRE(width > 0 && height > 0 && width <= kMaxSide && height <= kMaxSide,
              "cannot resize an image of ", image.width, " x ", image.height, " to ", width, " x ",
              height, "; want sides of 1 to ", kMaxSide, " pixels");
  // Values are rounded between the passes, so their order shows: columns go first when the height
  // shrinks by more than twice what the width does.
  const int64_t lost_rows = image.height - height, lost_columns = image.width - width;
  const bool columns_first = lost_rows > 0 && lost_rows > 2 * lost_columns;
  RgbImage result = columns_first ? ResizeColumns(image, height) : image;
  if (width != image.width) result = ResizeRows(result, width);
  if (height != result.height) result = ResizeColumns(result, height);
  return result;
}

RgbImage ResizeAndCrop(const RgbImage& image, int64_t size, const std::string& where) {
  RequireSound(image);
  const auto [shorter, longer] = std::minmax(image.width, image.height);
  LWM_REQUIRE(size * longer / shorter <= kMaxSide, where, ": ", image.width, " x ", image.height,
              " pixels are too narrow; with the short side at ", size, " the long one would pass ",
              kMaxSide, "; crop it first");
  const RgbImage resized =
      ResizeBicubic(image, size * image.width / shorter, size * image.height / shorter);
  const int64_t left = Margin(resized.width, size), top = Margin(resized.height, size);
  RgbImage result = Blank(size, size);
  for (int64_t y = 0; y < size; ++y)
    std::copy_n(resized.rgb_HWC.data() + ((top + y) * resized.width + left) * 3, size * 3,
                result.rgb_HWC.data() + y * size * 3);
  return result;
}

}  // namespace lwm::io
