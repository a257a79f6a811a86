#include "lwm/kernels/elementwise/logits_tile.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

std::vector<float> RandomLogits(size_t count) {
  std::mt19937 rng(static_cast<uint32_t>(count));
  std::normal_distribution<float> normal(0, 6);
  std::vector<float> values(count);
  for (float& value : values) value = normal(rng);
  return values;
}

void ExpectMatchesFloat64(size_t cols, const char* where) {
  constexpr size_t kRows = 3;
  const size_t stride = cols + 5;
  const auto logits_MN = RandomLogits(kRows * cols);
  float largest_M[kRows], sum_M[kRows], forward_M[kRows];
  std::vector<uint16_t> exp_MN(kRows * stride, 7);
  SoftmaxOfTile(logits_MN.data(), kRows, cols, largest_M, forward_M, nullptr, 0);
  SoftmaxOfTile(logits_MN.data(), kRows, cols, largest_M, sum_M, exp_MN.data(), stride);
  for (size_t m = 0; m < kRows; ++m) {
    const float* row_N = logits_MN.data() + m * cols;
    const float largest = *std::max_element(row_N, row_N + cols);
    ASSERT_EQ(largest_M[m], largest) << where << " " << cols;
    double sum = 0;
    for (size_t c = 0; c < cols; ++c) {
      const double e = std::exp(static_cast<double>(row_N[c]) - static_cast<double>(largest));
      sum += e;
      ASSERT_NEAR(FloatFromBf16(exp_MN[m * stride + c]), e, (0x1p-8 + 3e-6) * e)
          << where << " " << cols;
    }
    ASSERT_NEAR(sum_M[m], sum, 0x1p-24 * (8 + static_cast<double>(cols) / 16) * sum) << where;
    ASSERT_EQ(sum_M[m], forward_M[m]) << where;
    for (size_t c = cols; c < stride; ++c) ASSERT_EQ(exp_MN[m * stride + c], 7);
  }
}

TEST(LogitsTileTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t cols = 1; cols <= 67; ++cols) ExpectMatchesFloat64(cols, target);
    ExpectMatchesFloat64(256, target);
  });
}

TEST(LogitsTileTest, NanReachesTheSumOfItsRowOnly) {
  ForEachTarget([](const char* target) {
    auto logits_MN = RandomLogits(2 * 37);
    logits_MN[30] = NAN;
    float largest_M[2], sum_M[2];
    SoftmaxOfTile(logits_MN.data(), 2, 37, largest_M, sum_M, nullptr, 0);
    EXPECT_TRUE(std::isnan(sum_M[0])) << target;
    EXPECT_TRUE(std::isfinite(sum_M[1])) << target;
  });
}

TEST(LogitsTileTest, ScalingRoundsOnceOnEveryTarget) {
  ForEachTarget([](const char* target) {
    for (size_t n = 1; n <= 67; ++n) {
      std::vector<uint16_t> x(n);
      for (size_t i = 0; i < n; ++i) x[i] = Bf16FromFloat(0.3f * static_cast<float>(i) - 4);
      const std::vector<uint16_t> before = x;
      ScaleBf16(x.data(), n, 0.7f);
      for (size_t i = 0; i < n; ++i)
        ASSERT_EQ(x[i], Bf16FromFloat(FloatFromBf16(before[i]) * 0.7f)) << target;
    }
  });
}

}  // namespace
}  // namespace lwm::kernels
