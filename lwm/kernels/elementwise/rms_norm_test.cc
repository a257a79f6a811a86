#include "lwm/kernels/elementwise/rms_norm.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <string>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

constexpr float kEps = 1e-6f;

std::vector<float> RandomRow(size_t cols, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> row(cols);
  for (float& value : row) value = FloatFromBf16(Bf16FromFloat(normal(rng)));
  return row;
}

std::vector<uint16_t> ToBf16(const std::vector<float>& row) {
  std::vector<uint16_t> bits(row.size());
  for (size_t c = 0; c < row.size(); ++c) bits[c] = Bf16FromFloat(row[c]);
  return bits;
}

double InverseRms(const std::vector<float>& x_C) {
  double sum = 0;
  for (const double x : x_C) sum += x * x;
  return 1 / std::sqrt(sum / static_cast<double>(x_C.size()) + static_cast<double>(kEps));
}

void ExpectForwardMatches(size_t cols, const char* where) {
  const auto x_C = RandomRow(cols, 1), w_C = RandomRow(cols, 2);
  const auto x16_C = ToBf16(x_C);
  std::vector<float> y_C(cols);
  std::vector<uint16_t> y16_C(cols);
  RmsNorm(x_C.data(), w_C.data(), {1, cols, kEps}, y_C.data());
  RmsNorm(x16_C.data(), w_C.data(), {1, cols, kEps}, y16_C.data());
  const double n = InverseRms(x_C);
  const double bound = 0x1p-24 * (6 + std::sqrt(static_cast<double>(cols)) / 4);
  for (size_t c = 0; c < cols; ++c) {
    const double expected = x_C[c] * n * w_C[c];
    ASSERT_NEAR(y_C[c], expected, bound * std::abs(expected)) << where << " " << cols << " " << c;
    ASSERT_NEAR(FloatFromBf16(y16_C[c]), expected, (0x1p-8 + 1e-6) * std::abs(expected))
        << where << " " << cols << " " << c;
  }
}

void ExpectBackwardMatches(size_t cols, const char* where) {
  const auto dy_C = RandomRow(cols, 3), x_C = RandomRow(cols, 4), w_C = RandomRow(cols, 5);
  const auto dy16_C = ToBf16(dy_C), x16_C = ToBf16(x_C);
  std::vector<float> dx_C(cols), dw_C(cols, 1.0f), dw16_C(cols, 1.0f);
  std::vector<uint16_t> dx16_C(cols);
  RmsNormBackward(dy_C.data(), x_C.data(), w_C.data(), {1, cols, kEps}, dx_C.data(), dw_C.data());
  RmsNormBackward(dy16_C.data(), x16_C.data(), w_C.data(), {1, cols, kEps}, dx16_C.data(),
                  dw16_C.data());
  const double n = InverseRms(x_C);
  const double bound = 0x1p-24 * (6 + std::sqrt(static_cast<double>(cols)) / 4);
  double mean = 0;
  for (size_t c = 0; c < cols; ++c) mean += static_cast<double>(dy_C[c]) * w_C[c] * x_C[c];
  mean /= static_cast<double>(cols);
  for (size_t c = 0; c < cols; ++c) {
    const double direct = n * dy_C[c] * w_C[c], pull = n * n * n * x_C[c] * mean;
    const double scale = std::abs(direct) + std::abs(pull) + std::abs(n * x_C[c]);
    ASSERT_NEAR(dx_C[c], direct - pull, 1e-6 * scale) << where << " " << cols << " " << c;
    ASSERT_NEAR(FloatFromBf16(dx16_C[c]), direct - pull,
                0x1p-8 * std::abs(direct - pull) + 1e-6 * scale)
        << where << " " << cols << " " << c;
    const double dw = 1 + n * dy_C[c] * x_C[c];
    ASSERT_NEAR(dw_C[c], dw, bound * (1 + std::abs(dw - 1))) << where << " " << cols << " " << c;
    ASSERT_EQ(dw_C[c], dw16_C[c]);
  }
}

TEST(RmsNormTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t cols = 1; cols <= 67; ++cols) {
      ExpectForwardMatches(cols, target);
      ExpectBackwardMatches(cols, target);
    }
    // One lane adds a row in sequence: the error of long rows grows faster there.
    const size_t longest = std::string(target) == "SCALAR" ? 300 : 4096;
    ExpectForwardMatches(longest, target);
    ExpectBackwardMatches(longest, target);
  });
}

TEST(RmsNormTest, InPlaceGivesTheSameBits) {
  const auto x_C = RandomRow(101, 3), w_C = RandomRow(101, 4), dy_C = RandomRow(101, 5);
  std::vector<float> apart(101), in_place = x_C, dw_C(101);
  RmsNorm(x_C.data(), w_C.data(), {1, 101, kEps}, apart.data());
  RmsNorm(in_place.data(), w_C.data(), {1, 101, kEps}, in_place.data());
  EXPECT_EQ(apart, in_place);
  in_place = dy_C;
  RmsNormBackward(dy_C.data(), x_C.data(), w_C.data(), {1, 101, kEps}, apart.data(), dw_C.data());
  RmsNormBackward(in_place.data(), x_C.data(), w_C.data(), {1, 101, kEps}, in_place.data(),
                  dw_C.data());
  EXPECT_EQ(apart, in_place);
}

TEST(RmsNormTest, NanInOneRowLeavesTheOthersAlone) {
  auto x_RC = RandomRow(3 * 37, 6);
  const auto w_C = RandomRow(37, 7);
  x_RC[37 + 5] = NAN;
  std::vector<float> y_RC(x_RC.size());
  RmsNorm(x_RC.data(), w_C.data(), {3, 37, kEps}, y_RC.data());
  for (size_t c = 0; c < 37; ++c) {
    EXPECT_TRUE(std::isfinite(y_RC[c]));
    EXPECT_TRUE(std::isnan(y_RC[37 + c]));
    EXPECT_TRUE(std::isfinite(y_RC[74 + c]));
  }
}

}  // namespace
}  // namespace lwm::kernels
