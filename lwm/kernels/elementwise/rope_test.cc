#include "lwm/kernels/elementwise/rope.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

std::vector<float> RandomValues(size_t count, uint32_t seed) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal;
  std::vector<float> values(count);
  for (float& value : values) value = FloatFromBf16(Bf16FromFloat(normal(rng)));
  return values;
}

// Two tokens of two heads, a gap after every head and every token.
void ExpectMatchesFloat64(size_t pairs, bool inverse, const char* where) {
  const size_t head_stride = 2 * pairs + 3, token_stride = 2 * head_stride + 5;
  const RopeShape shape{2, 2, 2 * pairs, token_stride, head_stride};
  const auto before = RandomValues(2 * token_stride, 1);
  const auto cosine = RandomValues(2 * pairs, 2), sine = RandomValues(2 * pairs, 3);
  std::vector<float> x = before;
  std::vector<uint16_t> x16(before.size());
  for (size_t i = 0; i < x16.size(); ++i) x16[i] = Bf16FromFloat(before[i]);
  Rope(x.data(), shape, cosine.data(), sine.data(), inverse);
  Rope(x16.data(), shape, cosine.data(), sine.data(), inverse);
  std::vector<double> expected(before.begin(), before.end());
  for (size_t t = 0; t < 2; ++t)
    for (size_t h = 0; h < 2; ++h)
      for (size_t r = 0; r < pairs; ++r) {
        const size_t i = t * token_stride + h * head_stride + r, j = i + pairs;
        const double c = cosine[t * pairs + r], s = (inverse ? -1.0 : 1.0) * sine[t * pairs + r];
        expected[i] = before[i] * c - before[j] * s;
        expected[j] = before[j] * c + before[i] * s;
      }
  for (size_t i = 0; i < expected.size(); ++i) {
    ASSERT_NEAR(x[i], expected[i], 2e-6) << where << " " << pairs << " " << i;
    ASSERT_NEAR(FloatFromBf16(x16[i]), expected[i], 0x1p-8 * std::abs(expected[i]) + 2e-6)
        << where << " " << pairs << " " << i;
  }
}

TEST(RopeTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t pairs = 1; pairs <= 67; ++pairs) {
      ExpectMatchesFloat64(pairs, false, target);
      ExpectMatchesFloat64(pairs, true, target);
    }
  });
}

TEST(RopeTest, NanStaysInItsPair) {
  std::vector<float> x(2 * 20, 1.0f);
  const std::vector<float> cosine(20, 0.5f), sine(20, 0.25f);
  x[7] = NAN;
  Rope(x.data(), {1, 1, 40, 40, 40}, cosine.data(), sine.data(), false);
  for (size_t i = 0; i < x.size(); ++i) EXPECT_EQ(std::isnan(x[i]), i == 7 || i == 27) << i;
}

}  // namespace
}  // namespace lwm::kernels
