#include "lwm/io/gguf_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <limits>
#include <vector>

#include "lwm/base/random.h"

namespace lwm::io {
namespace {

TEST(GgufBlocksTest, EveryHalfSurvivesTheWayThroughFloat) {
  for (uint32_t half = 0; half < 65536; ++half) {
    const float value = HalfToFloat(static_cast<uint16_t>(half));
    if (std::isnan(value)) {
      EXPECT_TRUE(std::isnan(HalfToFloat(FloatToHalf(value))));
    } else {
      EXPECT_EQ(FloatToHalf(value), half);
    }
  }
  EXPECT_EQ(HalfToFloat(0x3c00), 1.0f);
  EXPECT_EQ(HalfToFloat(0x0001), 0x1p-24f);
  EXPECT_EQ(HalfToFloat(0xfbff), -65504.0f);
}

TEST(GgufBlocksTest, FloatsRoundToTheNearestHalfTiesToEven) {
  for (uint32_t half = 0; half < 0x7bff; ++half) {
    const float low = HalfToFloat(static_cast<uint16_t>(half));
    const float high = HalfToFloat(static_cast<uint16_t>(half + 1));
    const float middle = low + (high - low) / 2;
    EXPECT_EQ(FloatToHalf(middle), half % 2 == 0 ? half : half + 1);
    EXPECT_EQ(FloatToHalf(std::nextafter(middle, 0.0f)), half);
    EXPECT_EQ(FloatToHalf(-std::nextafter(middle, 1e9f)), (half + 1) | 0x8000);
  }
  EXPECT_EQ(FloatToHalf(65519.99f), 0x7bff);
  EXPECT_EQ(FloatToHalf(65520.0f), 0x7c00);
  EXPECT_EQ(FloatToHalf(std::numeric_limits<float>::infinity()), 0x7c00);
  EXPECT_EQ(FloatToHalf(1e-9f), 0);
}

TEST(GgufBlocksTest, HandMadeBlocksDequantise) {
  std::vector<std::byte> block(34);
  const auto set_half = [&](size_t at, float value) {
    const uint16_t half = FloatToHalf(value);
    std::memcpy(block.data() + at, &half, 2);
  };
  std::vector<float> weights(32);
  set_half(0, 0.5f);
  for (size_t i = 0; i < 32; ++i) block[2 + i] = static_cast<std::byte>(static_cast<int>(i) - 16);
  Dequantize(GgufType::kQ8_0, block, weights);
  for (int i = 0; i < 32; ++i) EXPECT_EQ(weights[static_cast<size_t>(i)], 0.5f * float(i - 16));
  for (size_t i = 0; i < 16; ++i) block[2 + i] = static_cast<std::byte>(i | (15 - i) << 4);
  Dequantize(GgufType::kQ4_0, std::span(block).first(18), weights);
  for (int i = 0; i < 16; ++i) {
    EXPECT_EQ(weights[static_cast<size_t>(i)], 0.5f * float(i - 8));
    EXPECT_EQ(weights[static_cast<size_t>(i) + 16], 0.5f * float(7 - i));
  }
  set_half(2, -3.0f);
  for (size_t i = 0; i < 16; ++i) block[4 + i] = static_cast<std::byte>(i | (15 - i) << 4);
  Dequantize(GgufType::kQ4_1, std::span(block).first(20), weights);
  for (int i = 0; i < 16; ++i) EXPECT_EQ(weights[static_cast<size_t>(i)], 0.5f * float(i) - 3.0f);
}

std::vector<float> RoundTrip(GgufType type, const std::vector<float>& weights) {
  const GgufTypeInfo info = *FindGgufType(static_cast<uint32_t>(type));
  std::vector<std::byte> blocks(weights.size() / kGgufBlock * info.bytes);
  Quantize(type, weights, blocks);
  std::vector<float> back(weights.size());
  Dequantize(type, blocks, back);
  return back;
}

TEST(GgufBlocksTest, QuantisingLosesAtMostHalfAStep) {
  Random random(7);
  std::vector<float> weights(32 * 64);
  for (float& weight : weights) weight = static_cast<float>(random.Uniform() * 2 - 1);
  const auto q8 = RoundTrip(GgufType::kQ8_0, weights), q4 = RoundTrip(GgufType::kQ4_0, weights);
  for (size_t i = 0; i < weights.size(); ++i) {
    // Half a step of the largest magnitude, the f16 rounding of the scale, and for Q4_0 the
    // positive end, which the range -8..7 does not reach.
    EXPECT_NEAR(q8[i], weights[i], 0.5 / 127 + 127 * 0x1p-18);
    EXPECT_NEAR(q4[i], weights[i], 1.0 / 8 + 8 * 0x1p-12);
  }
}

TEST(GgufBlocksTest, Q8RoundsHalvesAwayFromZero) {
  std::vector<float> weights = {127, 0.5f, 1.5f, 2.5f, 126.5f, 0.49999997f, 2.4999998f, 0.25f};
  for (size_t i = 0; i < 8; ++i) weights.push_back(-weights[i]);
  for (size_t i = 0; i < 16; ++i)
    weights.push_back(std::nextafter(static_cast<float>(i) + 0.5f, i % 2 ? 0.0f : 100.0f));
  const auto back = RoundTrip(GgufType::kQ8_0, weights);  // the scale is 1
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(back[i], std::round(weights[i])) << weights[i];
}

TEST(GgufBlocksTest, ZeroAndTinyBlocksStayFinite) {
  for (const float value : {0.0f, 1e-45f, 1e-38f, 1e-30f}) {
    for (const GgufType type : {GgufType::kQ8_0, GgufType::kQ4_0})
      for (const float weight : RoundTrip(type, std::vector<float>(32, value)))
        EXPECT_EQ(weight, 0.0f) << value;
  }
}

}  // namespace
}  // namespace lwm::io
