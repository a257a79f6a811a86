#include "lwm/vision_train/augment.h"

#include <algorithm>
#include <cmath>
#include <utility>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::vision_train {
namespace {

// The mean of two bilinear samples along one axis: positions of its taps in the source and their
// weights. Taps outside the source are dropped, so that weights fall short of 1 there.
struct Taps {
  int count = 0;
  std::array<int64_t, 4> index;
  std::array<float, 4> weight;

  void Add(int64_t position, double share, int64_t limit) {
    if (position < 0 || position >= limit || share == 0) return;
    index[static_cast<size_t>(count)] = position;
    weight[static_cast<size_t>(count++)] = static_cast<float>(share);
  }
};

std::vector<Taps> TapsOfAxis(int64_t size, double zoom, double shift, bool flip) {
  const auto side = static_cast<double>(size);
  std::vector<Taps> taps(static_cast<size_t>(size));
  for (int64_t x = 0; x < size; ++x) {
    for (const double offset : {0.25, 0.75}) {
      double from_middle = (static_cast<double>(x) + offset - side / 2 - shift * side) / zoom;
      if (flip) from_middle = -from_middle;
      const double position = 2 * (from_middle + side / 2) - 0.5;  // of pixel centres
      const double low = std::floor(position);
      const auto first = static_cast<int64_t>(low);
      Taps& tap = taps[static_cast<size_t>(x)];
      tap.Add(first, 0.5 * (1 - (position - low)), 2 * size);
      tap.Add(first + 1, 0.5 * (position - low), 2 * size);
    }
  }
  return taps;
}

// 1 - v^gamma for every byte v, the darkness: white is 0, so taps outside the source, which add
// nothing, show white.
std::array<float, 256> DarknessTable(double gamma) {
  std::array<float, 256> table;
  for (size_t byte = 0; byte < table.size(); ++byte)
    table[byte] = static_cast<float>(1 - std::pow(static_cast<double>(byte) / 255, gamma));
  return table;
}

void AddScaledRow(const float* row, int64_t values, float weight, float* sum) {
  for (int64_t i = 0; i < values; ++i) sum[i] += weight * row[i];
}

double LogUniform(double largest, Random& random) {
  const double exponent = 2 * random.Uniform() - 1;
  return largest > 0 ? std::pow(largest, exponent) : 1;
}

}  // namespace

void AugmentOptions::Validate() const {
  const auto require = [](const char* name, double value, double least, double most) {
    LWM_REQUIRE(value >= least && value <= most, "augmentation: ", name, " is ", value,
                "; want a value from ", least, " to ", most);
  };
  require("flip", flip, 0, 1);
  require("permute", permute, 0, 1);
  require("shift", shift, 0, 1);
  require("gamma", gamma, 0, 3);
  if (scale != 0) require("scale", scale, 1, 8);
  if (aspect != 0) require("aspect", aspect, 1, 8);
}

Warp DrawWarp(const AugmentOptions& options, Random& random) {
  Warp warp;
  warp.flip = random.Uniform() < options.flip;
  const double zoom = LogUniform(options.scale, random);
  const double stretch = std::sqrt(LogUniform(options.aspect, random));
  warp.zoom_x = zoom * stretch;
  warp.zoom_y = zoom / stretch;
  warp.shift_x = options.shift * (2 * random.Uniform() - 1);
  warp.shift_y = options.shift * (2 * random.Uniform() - 1);
  warp.gamma = std::exp(options.gamma * (2 * random.Uniform() - 1));
  const bool permute = random.Uniform() < options.permute;
  // Drawn even when unused, so that the next image's numbers do not depend on the options.
  const uint64_t first = random.Below(3), second = random.Below(2);
  if (permute) {
    std::swap(warp.channels[0], warp.channels[first]);
    std::swap(warp.channels[1], warp.channels[1 + second]);
  }
  return warp;
}

void ApplyWarp(const io::RgbImage& source, const Warp& warp, int64_t size, float* out_HWC) {
  const int64_t side = 2 * size, row_values = side * 3;
  LWM_CHECK(source.width == side && source.height == side, "an image of ", source.width, " x ",
            source.height, " for size ", size);
  const std::array<float, 256> table = DarknessTable(warp.gamma);
  std::vector<float> dark(source.rgb_HWC.size());
  for (size_t i = 0; i < dark.size(); ++i) dark[i] = table[source.rgb_HWC[i]];
  const std::vector<Taps> taps_y = TapsOfAxis(size, warp.zoom_y, warp.shift_y, false);
  const std::vector<Taps> taps_x = TapsOfAxis(size, warp.zoom_x, warp.shift_x, warp.flip);
  std::vector<float> row(static_cast<size_t>(row_values));
  for (const Taps& down : taps_y) {
    std::fill(row.begin(), row.end(), 0.0F);
    for (size_t t = 0; t < static_cast<size_t>(down.count); ++t)
      AddScaledRow(dark.data() + down.index[t] * row_values, row_values, down.weight[t],
                   row.data());
    for (const Taps& across : taps_x) {
      std::array<float, 3> sum = {0, 0, 0};
      for (size_t t = 0; t < static_cast<size_t>(across.count); ++t)
        for (size_t c = 0; c < 3; ++c)
          sum[c] += across.weight[t] * row[static_cast<size_t>(across.index[t]) * 3 + c];
      for (const int channel : warp.channels)
        *out_HWC++ = 1 - 2 * sum[static_cast<size_t>(channel)];
    }
  }
}

}  // namespace lwm::vision_train
