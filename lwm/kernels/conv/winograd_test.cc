#include "lwm/kernels/conv/winograd.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

using Floats = std::vector<float>;

Floats Random(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  Floats values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

constexpr double kG[4][3] = {{1, 0, 0}, {.5, .5, .5}, {.5, -.5, .5}, {0, 0, 1}};

// Every channel convolved with its own 3x3 kernel, so that channels are matched one by one.
struct Problem {
  WinogradGrid grid;
  size_t images, channels;
  Floats x_NHWC = Random(images * grid.height * grid.width * channels, 1);
  Floats w_C33 = Random(channels * 9, 2), bias_C = Random(channels, 3);
  Floats residual_NHWC = Random(x_NHWC.size(), 4);

  // x at (row, column), one before the image is 0.
  double X(size_t image, size_t row, size_t column, size_t c) const {
    if (row == 0 || column == 0 || row > grid.height || column > grid.width) return 0;
    const size_t at = (image * grid.height + row - 1) * grid.width + column - 1;
    return static_cast<double>(x_NHWC[at * channels + c]);
  }
  double Exact(size_t image, size_t row, size_t column, size_t c) const {
    double sum = bias_C[c];
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j)
        sum += X(image, row + i, column + j, c) * w_C33[c * 9 + i * 3 + j];
    return sum;
  }
  float Weight(size_t c, size_t k) const {
    double sum = 0;
    for (size_t i = 0; i < 3; ++i)
      for (size_t j = 0; j < 3; ++j) sum += kG[k / 4][i] * w_C33[c * 9 + i * 3 + j] * kG[k % 4][j];
    return static_cast<float>(sum);
  }
};

// In two runs of tiles, with a gap between planes.
Floats Convolve(const Problem& problem, const float* residual) {
  const size_t channels = problem.channels;
  const size_t all = problem.images * problem.grid.tiles_per_image();
  const Floats zeros_C(channels);
  Floats y_NHWC(problem.x_NHWC.size(), NAN);
  for (const auto& [first, tiles] : {std::pair{size_t{0}, all / 2}, {all / 2, all - all / 2}}) {
    const size_t plane = tiles * channels + 3;
    Floats planes(16 * plane);
    WinogradInput(problem.grid, problem.x_NHWC.data(), zeros_C.data(), channels,
                  {first, tiles, plane}, planes.data());
    for (size_t k = 0; k < kWinogradPlanes; ++k)
      for (size_t i = 0; i < tiles * channels; ++i)
        planes[k * plane + i] *= problem.Weight(i % channels, k);
    WinogradOutput(problem.grid, planes.data(), problem.bias_C.data(), residual, channels,
                   {first, tiles, plane}, y_NHWC.data());
  }
  return y_NHWC;
}

void ExpectMatches(size_t images, size_t height, size_t width, size_t channels, const char* where) {
  const Problem problem{{height, width}, images, channels};
  const Floats plain = Convolve(problem, nullptr);
  const Floats sum = Convolve(problem, problem.residual_NHWC.data());
  for (size_t i = 0; i < plain.size(); ++i) {
    const size_t c = i % channels, column = i / channels % width;
    const size_t row = i / channels / width % height, image = i / channels / width / height;
    const double exact = problem.Exact(image, row, column, c);
    ASSERT_NEAR(plain[i], exact, 1e-5) << where << " " << channels << " " << i;
    ASSERT_EQ(sum[i], plain[i] + problem.residual_NHWC[i]) << where << " " << channels << " " << i;
  }
}

TEST(WinogradTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t channels = 1; channels <= 67; ++channels) ExpectMatches(1, 3, 4, channels, target);
    ExpectMatches(1, 1, 1, 5, target);
    ExpectMatches(2, 7, 9, 20, target);
    ExpectMatches(3, 8, 2, 17, target);
  });
}

double Dot(const Floats& a, const Floats& b) {
  double sum = 0;
  for (size_t i = 0; i < a.size(); ++i) sum += static_cast<double>(a[i]) * b[i];
  return sum;
}

// A gradient is the transposed transform: <T m, dy> = <m, T^t dy>.
void ExpectOutputGradientTransposes(const WinogradGrid& grid, size_t images, size_t channels,
                                    const char* where) {
  const size_t tiles = images * grid.tiles_per_image(), plane = tiles * channels;
  const size_t pixels = images * grid.height * grid.width * channels;
  const Floats m = Random(16 * plane, 1), dy = Random(pixels, 2), zeros_C(channels);
  Floats y(pixels), dm(16 * plane, NAN);
  WinogradOutput(grid, m.data(), zeros_C.data(), nullptr, channels, {0, tiles, plane}, y.data());
  WinogradOutputGradient(grid, dy.data(), zeros_C.data(), channels, {0, tiles, plane}, dm.data());
  const double scale = std::sqrt(Dot(y, y) * Dot(dy, dy));
  ASSERT_NEAR(Dot(y, dy), Dot(m, dm), 1e-6 * scale) << where << " " << channels;
}

void ExpectWeightsGradientTransposes(size_t out, size_t in, const char* where) {
  const size_t plane = out * in + 3;
  const Floats w = Random(out * 9 * in, 3), du = Random(16 * plane, 4);
  Floats u(16 * plane), u_of_turned(16 * plane), dw(w.size(), NAN), turned(w.size());
  WinogradWeights(w.data(), false, out, in, plane, u.data());
  WinogradWeightsGradient(du.data(), plane, out, in, dw.data());
  const double scale = std::sqrt(Dot(u, u) * Dot(du, du));
  ASSERT_NEAR(Dot(u, du), Dot(w, dw), 1e-6 * scale) << where << " " << in;
  for (size_t o = 0; o < out; ++o)
    for (size_t k = 0; k < 9; ++k)
      for (size_t i = 0; i < in; ++i) turned[(o * 9 + k) * in + i] = w[(o * 9 + 8 - k) * in + i];
  WinogradWeights(turned.data(), false, out, in, plane, u_of_turned.data());
  WinogradWeights(w.data(), true, out, in, plane, u.data());
  ASSERT_EQ(u, u_of_turned) << where << " " << in;
}

TEST(WinogradTest, GradientsTransposeTheTransformsOnEveryTarget) {
  ForEachTarget([](const char* target) {
    for (size_t channels = 1; channels <= 67; channels += 3) {
      ExpectOutputGradientTransposes({3, 4}, 2, channels, target);
      ExpectOutputGradientTransposes({5, 1}, 1, channels, target);
      ExpectWeightsGradientTransposes(3, channels, target);
    }
  });
}

TEST(WinogradTest, WeightsAreThoseOfTheDefinition) {
  constexpr size_t kIn = 5;
  const Floats w = Random(9 * kIn, 2);
  Floats u(16 * kIn);
  WinogradWeights(w.data(), false, 1, kIn, kIn, u.data());
  for (size_t k = 0; k < 16; ++k)
    for (size_t c = 0; c < kIn; ++c) {
      double sum = 0;
      for (size_t i = 0; i < 3; ++i)
        for (size_t j = 0; j < 3; ++j)
          sum += kG[k / 4][i] * w[(i * 3 + j) * kIn + c] * kG[k % 4][j];
      EXPECT_NEAR(u[k * kIn + c], sum, 1e-6);
    }
}

}  // namespace
}  // namespace lwm::kernels
