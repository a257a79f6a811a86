// The element conversions and exp of lanes-inl.h, through the kernels that use them.
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/elementwise/cross_entropy.h"
#include "lwm/kernels/elementwise/rope.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

// A rotation by cos = c, sin = 0 stores c * x: with x = 1 the stored bits are c rounded to bf16.
std::vector<uint16_t> RoundThroughRope(const std::vector<float>& values) {
  const size_t n = values.size();
  std::vector<uint16_t> x(2 * n, Bf16FromFloat(1.0f));
  const std::vector<float> sine(n, 0.0f);
  Rope(x.data(), {1, 1, 2 * n, 2 * n, 2 * n}, values.data(), sine.data(), false);
  x.resize(n);
  return x;
}

TEST(LanesTest, Bf16StoresRoundToNearestEvenOnEveryTarget) {
  std::mt19937 rng(1);
  std::vector<float> values;
  for (int i = 0; i < 4000; ++i) {
    const auto bits = static_cast<uint32_t>(rng());
    for (const uint32_t low : {bits & 0xFFFF, 0x8000u, 0x7FFFu, 0x8001u, 0u}) {
      const auto value = std::bit_cast<float>((bits & 0xFFFF0000u) | low);
      if (std::isfinite(value)) values.push_back(value);
    }
  }
  values.push_back(std::numeric_limits<float>::max());  // rounds to infinity
  ForEachTarget([&](const char* target) {
    const std::vector<uint16_t> stored = RoundThroughRope(values);
    for (size_t i = 0; i < values.size(); ++i)
      ASSERT_EQ(stored[i], Bf16FromFloat(values[i])) << target << " " << values[i];
  });
}

TEST(LanesTest, NanStaysNanWhateverItsPayload) {
  ForEachTarget([](const char* target) {
    for (const uint32_t bits : {0x7FC00000u, 0x7FFFFFFFu, 0xFFFFFFFFu, 0x7F800001u}) {
      const auto stored = RoundThroughRope({std::bit_cast<float>(bits), 2.0f});
      EXPECT_TRUE(std::isnan(FloatFromBf16(stored[0]))) << target << std::hex << bits;
    }
  });
}

// Two logits (x, 0), x <= 0: the gradient of the first with target 1 and weight 1 is
// exp(x) / (1 + exp(x)).
TEST(LanesTest, ExpIsAccurateDownToItsFlushOnEveryTarget) {
  ForEachTarget([](const char* target) {
    double worst = 0;
    for (double x = 0; x > -85; x -= 0.00731) {
      float logits[2] = {static_cast<float>(x), 0.0f}, nll = 0;
      const float weight = 1;
      const int64_t label = 1;
      CrossEntropy(logits, 1, 2, &label, &weight, &nll);
      const double e = std::exp(static_cast<double>(static_cast<float>(x)));
      worst = std::max(worst, std::abs(logits[0] - e / (1 + e)) / (e / (1 + e)));
    }
    EXPECT_LT(worst, 4e-7) << target;
  });
}

}  // namespace
}  // namespace lwm::kernels
