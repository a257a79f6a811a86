#include "lwm/io/super_blocks.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <string>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/io/gguf_blocks.h"
#include "lwm/io/gguf_source.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/source_values.h"

namespace lwm::io {
namespace {

using Bytes = std::vector<uint8_t>;

double Half(const Bytes& block, size_t at) {
  return HalfToFloat(static_cast<uint16_t>(block[at] | block[at + 1] << 8));
}

// Bits [low, low + count) of a byte.
int Bits(int byte, int low, int count) { return (byte >> low) & ((1 << count) - 1); }

// Each formula below gives weight i of a block in f64, one weight at a time.

double Q2K(const Bytes& b, int i) {
  const int group = i / 16, quant = Bits(b[16 + i / 128 * 32 + i % 32], i / 32 % 4 * 2, 2);
  return Half(b, 80) * Bits(b[group], 0, 4) * quant - Half(b, 82) * Bits(b[group], 4, 4);
}

double Q3K(const Bytes& b, int i) {
  const int group = i / 16;
  const int low = Bits(b[96 + group % 8], group / 8 * 4, 4);
  const int high = Bits(b[96 + 8 + group % 4], group / 4 * 2, 2);
  const int quant = Bits(b[32 + i / 128 * 32 + i % 32], i / 32 % 4 * 2, 2);
  const int top = Bits(b[i % 32], i / 32, 1);
  return Half(b, 108) * (low + 16 * high - 32) * (quant + 4 * top - 4);
}

std::pair<int, int> SixBitGroup(const Bytes& b, int group) {
  const auto at = [&](int j) { return b[static_cast<size_t>(4 + j)]; };
  if (group < 4) return {Bits(at(group), 0, 6), Bits(at(group + 4), 0, 6)};
  return {Bits(at(group + 4), 0, 4) + 16 * Bits(at(group - 4), 6, 2),
          Bits(at(group + 4), 4, 4) + 16 * Bits(at(group), 6, 2)};
}

double Q4K(const Bytes& b, int i) {
  const auto [scale, minimum] = SixBitGroup(b, i / 32);
  const int quant = Bits(b[16 + i / 64 * 32 + i % 32], i / 32 % 2 * 4, 4);
  return Half(b, 0) * scale * quant - Half(b, 2) * minimum;
}

double Q5K(const Bytes& b, int i) {
  const auto [scale, minimum] = SixBitGroup(b, i / 32);
  const int low = Bits(b[48 + i / 64 * 32 + i % 32], i / 32 % 2 * 4, 4);
  return Half(b, 0) * scale * (low + 16 * Bits(b[16 + i % 32], i / 32, 1)) - Half(b, 2) * minimum;
}

double Q6K(const Bytes& b, int i) {
  const int half = i / 128, row = i / 32 % 4;
  const int low = Bits(b[half * 64 + row % 2 * 32 + i % 32], row / 2 * 4, 4);
  const int high = Bits(b[128 + half * 32 + i % 32], row * 2, 2);
  return Half(b, 208) * static_cast<int8_t>(b[192 + i / 16]) * (low + 16 * high - 32);
}

double Q8K(const Bytes& b, int i) {
  float scale;
  std::memcpy(&scale, b.data(), sizeof(scale));
  return double{scale} * static_cast<int8_t>(b[4 + i]);
}

double Iq4Xs(const Bytes& b, int i) {
  const int group = i / 32, high = b[2] | b[3] << 8;
  const int scale = Bits(b[4 + group / 2], group % 2 * 4, 4) + 16 * Bits(high, group * 2, 2);
  const int quant = Bits(b[8 + group * 16 + i % 16], i % 32 / 16 * 4, 4);
  return Half(b, 0) * (scale - 32) * kIq4Levels[quant];
}

struct Form {
  const char* name;
  double (*weight)(const Bytes& block, int i);
  std::vector<size_t> scales;  // where f16 numbers stand
};
const Form kForms[] = {{"Q2_K", Q2K, {80, 82}}, {"Q3_K", Q3K, {108}}, {"Q4_K", Q4K, {0, 2}},
                       {"Q5_K", Q5K, {0, 2}},   {"Q6_K", Q6K, {208}}, {"Q8_K", Q8K, {}},
                       {"IQ4_XS", Iq4Xs, {0}}};

Bytes RandomBlock(Random& random, const Form& form) {
  Bytes block(FindGgufType(form.name)->bytes);
  for (uint8_t& byte : block) byte = static_cast<uint8_t>(random.Uniform() * 256);
  for (const size_t at : form.scales) {
    const uint16_t half = FloatToHalf(static_cast<float>(random.Uniform() * 2 - 1));
    std::memcpy(block.data() + at, &half, sizeof(half));
  }
  const auto scale = static_cast<float>(random.Uniform() * 2 - 1);
  if (form.scales.empty()) std::memcpy(block.data(), &scale, sizeof(scale));
  return block;
}

TEST(SuperBlocksTest, EveryWeightIsThatOfItsFormulaInF64) {
  Random random(3);
  for (const Form& form : kForms) {
    const GgufTypeInfo type = *FindGgufType(form.name);
    ASSERT_EQ(type.block, kLargestGgufBlock);
    for (int repeat = 0; repeat < 20; ++repeat) {
      const Bytes block = RandomBlock(random, form);
      std::vector<float> weights(kLargestGgufBlock);
      Dequantize(type.type, std::as_bytes(std::span(block)), weights);
      for (int i = 0; i < 256; ++i) {
        const double expected = form.weight(block, i);
        // Three f32 roundings of numbers up to |d*s*q| + |m*t| <= 64 * 32 + 64.
        EXPECT_NEAR(weights[static_cast<size_t>(i)], expected, 3 * 2112 * 0x1p-24)
            << form.name << " weight " << i;
      }
    }
  }
}

TEST(SuperBlocksTest, EveryTypeGivesTheBitsOfTheReference) {
  const auto folder = testing_support::GoldenFolder("gguf_blocks");
  const GgufSource source(folder / "blocks.gguf");
  const SafetensorsSource expected(folder / "expected.safetensors");
  EXPECT_EQ(source.infos().size(), 12u);
  for (const TensorInfo& info : source.infos()) {
    EXPECT_EQ(source.Encoding(source.IndexOf(info.name)), info.name);
    testing_support::ExpectSameTensor(source, expected, info.name);
  }
}

TEST(SuperBlocksTest, PartsOfATensorEqualTheWhole) {
  const GgufSource source(testing_support::GoldenFolder("gguf_blocks") / "blocks.gguf");
  for (const char* name : {"Q4_K", "Q6_K", "Q5_0"}) {
    const auto whole = testing_support::ValuesOf(source, name);
    std::vector<float> part(512);
    source.ReadRange(source.IndexOf(name), 256 * sizeof(float),
                     std::as_writable_bytes(std::span(part)));
    for (size_t i = 0; i < part.size(); ++i) EXPECT_EQ(part[i], static_cast<float>(whole[256 + i]));
  }
}

}  // namespace
}  // namespace lwm::io
