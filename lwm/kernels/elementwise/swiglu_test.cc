#include "lwm/kernels/elementwise/swiglu.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

std::vector<float> RandomValues(size_t count, uint32_t seed, float spread) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(count);
  for (float& value : values) value = FloatFromBf16(Bf16FromFloat(normal(rng)));
  return values;
}

std::vector<uint16_t> ToBf16(const std::vector<float>& values) {
  std::vector<uint16_t> bits(values.size());
  for (size_t i = 0; i < values.size(); ++i) bits[i] = Bf16FromFloat(values[i]);
  return bits;
}

struct Expected {
  double a, dg, du;
  double dg_scale;  // 1 + g (1 - s) cancels near its zero at g = -1.28
};
Expected Reference(double da, double g, double u) {
  const double s = 1 / (1 + std::exp(-g));
  return {g * s * u, da * u * s * (1 + g * (1 - s)), da * g * s,
          std::abs(da * u * s) * (1 + std::abs(g * (1 - s)))};
}

void ExpectMatchesFloat64(size_t n, const char* where) {
  const auto da = RandomValues(n, 1, 1), g = RandomValues(n, 2, 4), u = RandomValues(n, 3, 1);
  std::vector<float> a(n), da_a = da, g_dg = g, u_du = u;
  auto da16 = ToBf16(da), g16 = ToBf16(g), u16 = ToBf16(u);
  std::vector<uint16_t> a16(n);
  Swiglu(g.data(), u.data(), n, a.data());
  Swiglu(g16.data(), u16.data(), n, a16.data());
  SwigluBackward(da_a.data(), g_dg.data(), u_du.data(), n);
  SwigluBackward(da16.data(), g16.data(), u16.data(), n);
  constexpr double kF32 = 5e-7, kBf16 = 0x1p-8 + 1e-6;
  for (size_t i = 0; i < n; ++i) {
    const Expected e = Reference(da[i], g[i], u[i]);
    ASSERT_NEAR(a[i], e.a, kF32 * std::abs(e.a)) << where << " g=" << g[i];
    ASSERT_EQ(a[i], da_a[i]) << where;
    ASSERT_NEAR(g_dg[i], e.dg, kF32 * e.dg_scale) << where << " g=" << g[i];
    ASSERT_NEAR(u_du[i], e.du, kF32 * std::abs(e.du)) << where << " g=" << g[i];
    ASSERT_NEAR(FloatFromBf16(a16[i]), e.a, kBf16 * std::abs(e.a)) << where;
    ASSERT_EQ(a16[i], da16[i]) << where;
    ASSERT_NEAR(FloatFromBf16(g16[i]), e.dg, kBf16 * std::abs(e.dg) + kF32 * e.dg_scale) << where;
    ASSERT_NEAR(FloatFromBf16(u16[i]), e.du, kBf16 * std::abs(e.du)) << where;
  }
}

TEST(SwigluTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t n = 1; n <= 67; ++n) ExpectMatchesFloat64(n, target);
    ExpectMatchesFloat64(5000, target);
  });
}

TEST(SwigluTest, InPlaceGivesTheSameBits) {
  const auto g = RandomValues(101, 2, 3), u = RandomValues(101, 3, 1);
  std::vector<float> apart(101), over_g = g, over_u = u;
  Swiglu(g.data(), u.data(), 101, apart.data());
  Swiglu(over_g.data(), u.data(), 101, over_g.data());
  Swiglu(g.data(), over_u.data(), 101, over_u.data());
  EXPECT_EQ(apart, over_g);
  EXPECT_EQ(apart, over_u);
}

TEST(SwigluTest, LargeInputsDoNotOverflowAndNanStaysInItsElement) {
  ForEachTarget([](const char* target) {
    const float huge = std::numeric_limits<float>::max();
    const std::vector<float> g = {huge, -huge, 200, -200, NAN, 0, 1}, u = {1, 1, 1, 1, 1, 1, NAN};
    std::vector<float> a(g.size());
    Swiglu(g.data(), u.data(), g.size(), a.data());
    EXPECT_EQ(a[0], huge) << target;
    EXPECT_EQ(a[1], 0.0f) << target;
    EXPECT_EQ(a[2], 200.0f) << target;
    EXPECT_EQ(a[3], 0.0f) << target;
    EXPECT_TRUE(std::isnan(a[4])) << target;
    EXPECT_EQ(a[5], 0.0f) << target;
    EXPECT_TRUE(std::isnan(a[6])) << target;
  });
}

}  // namespace
}  // namespace lwm::kernels
