#include "lwm/kernels/conv/winograd4.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdlib>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

constexpr size_t kPanel = kWinograd4Panel;

// Random numbers that bf16 holds, as its bits.
std::vector<uint16_t> RandomBits(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<uint16_t> bits(count);
  for (uint16_t& x : bits) x = Bf16FromFloat(normal(rng));
  return bits;
}

std::vector<float> Random(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

// Every channel convolved with its own 3x3 kernel, so that channels are matched one by one: the
// matrices are computed as those of one input channel, 32 kernels at a time.
struct Problem {
  Winograd4Grid grid;
  size_t images, channels;
  size_t outputs = images * grid.out_height() * grid.out_width() * channels;
  size_t padded = (channels + kPanel - 1) / kPanel * kPanel;
  std::vector<uint16_t> x_NHWC = RandomBits(images * grid.height * grid.width * channels, 1);
  std::vector<uint16_t> residual_NHWC = RandomBits(outputs, 4);
  std::vector<float> w_9C = Random(9 * padded, 2), bias_C = Random(channels, 3);

  // The image that is convolved, repeated or not; 0 one before it and after it.
  double X(size_t image, size_t row, size_t column, size_t c) const {
    if (row == 0 || column == 0 || row > grid.out_height() || column > grid.out_width()) return 0;
    const size_t by = grid.doubles ? 2 : 1;
    const size_t at = (image * grid.height + (row - 1) / by) * grid.width + (column - 1) / by;
    return static_cast<double>(FloatFromBf16(x_NHWC[at * channels + c]));
  }
  double Exact(size_t at) const {
    const size_t c = at % channels, column = at / channels % grid.out_width();
    const size_t row = at / channels / grid.out_width() % grid.out_height();
    const size_t image = at / channels / grid.out_width() / grid.out_height();
    double sum = static_cast<double>(bias_C[c]);
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j)
        sum += X(image, row + i, column + j, c) * w_9C[(i * 3 + j) * padded + c];
    return sum;
  }
};

// The products of a panel from the planes of inputs.
std::vector<float> Multiply(const Problem& problem, const std::vector<float>& v, size_t v_plane,
                            size_t tiles, size_t panel, size_t m_plane) {
  const size_t products = problem.grid.products();
  std::vector<int16_t> u(products * kPanel);
  std::vector<float> scale(products * kPanel), m(products * m_plane, NAN);
  Winograd4Weights(problem.grid, problem.w_9C.data() + panel, 1, problem.padded, u.data(),
                   scale.data());
  for (size_t k = 0; k < products; ++k)
    for (size_t t = 0; t < tiles; ++t)
      for (size_t c = 0; c < std::min(kPanel, problem.channels - panel); ++c)
        m[k * m_plane + t * kPanel + c] =
            v[problem.grid.plane_of(k) * v_plane + t * problem.channels + panel + c] *
            static_cast<float>(u[k * kPanel + c]) * scale[k * kPanel + c];
  return m;
}

// In two runs of tiles, with a gap between planes.
std::vector<uint16_t> Convolve(const Problem& problem, const uint16_t* residual) {
  const size_t channels = problem.channels;
  const size_t all = problem.images * problem.grid.tiles_per_image();
  const std::vector<uint16_t> zeros_C(channels);
  std::vector<uint16_t> y_NHWC(problem.outputs, 0x7FFF);
  for (const auto& [first, tiles] : {std::pair{size_t{0}, all / 2}, {all / 2, all - all / 2}}) {
    const size_t v_plane = tiles * channels + 3, m_plane = tiles * kPanel + 5;
    std::vector<float> v(problem.grid.planes() * v_plane);
    Winograd4Input(problem.grid, problem.x_NHWC.data(), zeros_C.data(), channels,
                   {first, tiles, v_plane}, v.data());
    for (size_t panel = 0; panel < channels; panel += kPanel) {
      const auto m = Multiply(problem, v, v_plane, tiles, panel, m_plane);
      Winograd4Output(problem.grid, m.data(), {first, tiles, m_plane},
                      {std::min(kPanel, channels - panel), channels, problem.bias_C.data() + panel,
                       residual ? residual + panel : nullptr, y_NHWC.data() + panel});
    }
  }
  return y_NHWC;
}

void ExpectMatches(const Winograd4Grid& grid, size_t images, size_t channels, const char* where) {
  const Problem problem{grid, images, channels};
  const auto plain = Convolve(problem, nullptr);
  const auto sum = Convolve(problem, problem.residual_NHWC.data());
  for (size_t i = 0; i < plain.size(); ++i) {
    const double exact = problem.Exact(i);
    const double added = exact + FloatFromBf16(problem.residual_NHWC[i]);
    // bf16 rounds by half of 2^-7 of the power of two below; weights are off by 1.6e-5.
    ASSERT_NEAR(FloatFromBf16(plain[i]), exact, std::abs(exact) / 255 + 5e-4)
        << where << " " << grid.doubles << " " << channels << " " << i;
    ASSERT_NEAR(FloatFromBf16(sum[i]), added, std::abs(added) / 255 + 5e-4)
        << where << " " << grid.doubles << " " << channels << " " << i;
  }
}

TEST(Winograd4Test, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (const bool doubles : {false, true}) {
      for (size_t channels = 1; channels <= 67; ++channels)
        ExpectMatches({3, 5, doubles}, 1, channels, target);
      ExpectMatches({1, 1, doubles}, 1, 5, target);
      ExpectMatches({7, 9, doubles}, 2, 20, target);
      ExpectMatches({8, 2, doubles}, 3, 17, target);
      ExpectMatches({6, 12, doubles}, 2, 33, target);
    }
  });
}

// The image is rounded once, from f32: within half a step of the exact result but for the
// weights.
TEST(Winograd4Test, ResidualMayBeTheResult) {
  const Problem problem{{6, 7, false}, 2, 40};
  const auto apart = Convolve(problem, problem.residual_NHWC.data());
  std::vector<uint16_t> y_NHWC = problem.residual_NHWC;
  const std::vector<uint16_t> zeros_C(40);
  const size_t tiles = 2 * problem.grid.tiles_per_image();
  std::vector<float> v(36 * tiles * 40);
  Winograd4Input(problem.grid, problem.x_NHWC.data(), zeros_C.data(), 40, {0, tiles, tiles * 40},
                 v.data());
  for (const size_t panel : {0, 32}) {
    const auto m = Multiply(problem, v, tiles * 40, tiles, panel, tiles * kPanel);
    Winograd4Output(problem.grid, m.data(), {0, tiles, tiles * kPanel},
                    {std::min(kPanel, 40 - panel), 40, problem.bias_C.data() + panel,
                     y_NHWC.data() + panel, y_NHWC.data() + panel});
  }
  EXPECT_EQ(y_NHWC, apart);
}

constexpr double kA = 0.70710678118654752, kB = 1.41421356237309505;
constexpr double kPlain[6][3] = {{1, 0, 0},
                                 {-2. / 3, -2. / 3 * kA, -1. / 3},
                                 {-2. / 3, 2. / 3 * kA, -1. / 3},
                                 {1. / 6, kB / 6, 1. / 3},
                                 {1. / 6, -kB / 6, 1. / 3},
                                 {0, 0, 1}};
constexpr double kDoubled[5][3] = {
    {1, 0, 0}, {.5, .5, .5}, {.5, -.5, -.5}, {-.5, -.5, .5}, {0, 0, 1}};

TEST(Winograd4Test, WeightsAreThoseOfTheDefinitionWithinTheirScale) {
  constexpr size_t kIn = 5, kStride = 40;
  const auto w = Random(9 * kIn * kStride, 2);
  ForEachTarget([&](const char* target) {
    for (const bool doubles : {false, true}) {
      const Winograd4Grid grid{1, 1, doubles};
      const size_t side = doubles ? 5 : 6;
      const auto* g = doubles ? kDoubled : kPlain;
      std::vector<int16_t> u(grid.products() * kIn * kPanel);
      std::vector<float> scale(grid.products() * kPanel);
      Winograd4Weights(grid, w.data(), kIn, kStride, u.data(), scale.data());
      std::vector<int> largest(scale.size());
      for (size_t at = 0; at < u.size(); ++at) {
        const size_t k = at / kPanel / kIn, i = at / kPanel % kIn, o = at % kPanel;
        double sum = 0;
        for (size_t p = 0; p < 3; ++p)
          for (size_t q = 0; q < 3; ++q)
            sum += g[k / side][p] * g[k % side][q] * w[((p * 3 + q) * kIn + i) * kStride + o];
        const double step = static_cast<double>(scale[k * kPanel + o]);
        ASSERT_NEAR(u[at] * step, sum, 0.52 * step + 1e-6) << target << " " << at;
        largest[k * kPanel + o] = std::max(largest[k * kPanel + o], std::abs(int{u[at]}));
      }
      // Each scale uses all 16 bits.
      for (const int most : largest) ASSERT_NEAR(most, 32767, 1) << target;
    }
  });
}

TEST(Winograd4Test, WeightsThatAreNotFiniteMakeTheirChannelNan) {
  auto w = Random(9 * 3 * kPanel, 2);
  w[4 * 3 * kPanel + 7] = INFINITY;
  w[2 * 3 * kPanel + 8] = NAN;
  for (size_t i = 0; i < 27; ++i) w[i * kPanel + 9] = 0;
  for (size_t i = 0; i < 27; ++i) w[i * kPanel + 10] = 1e-42f;
  ForEachTarget([&](const char* target) {
    const Winograd4Grid grid{1, 1, false};
    std::vector<int16_t> u(36 * 3 * kPanel);
    std::vector<float> scale(36 * kPanel);
    Winograd4Weights(grid, w.data(), 3, kPanel, u.data(), scale.data());
    for (size_t at = 0; at < scale.size(); ++at) {
      const size_t o = at % kPanel;
      ASSERT_EQ(std::isnan(scale[at]), o == 7 || o == 8) << target << " " << at;
      if (o == 9 || o == 10) {
        ASSERT_EQ(u[at / kPanel * 3 * kPanel + o], 0) << target << " " << at;
      }
    }
  });
}

}  // namespace
}  // namespace lwm::kernels
