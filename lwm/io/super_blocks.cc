#include "lwm/io/super_blocks.h"

#include <cstdint>
#include <cstring>

#include "lwm/io/gguf_blocks.h"

namespace lwm::io {
namespace {

float LoadHalf(const uint8_t* from) noexcept {
  uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  return HalfToFloat(half);
}

const uint8_t* Bytes(const std::byte* block) noexcept {
  return reinterpret_cast<const uint8_t*>(block);
}

struct ScaleAndMinimum {
  int scale, minimum;
};

// Group g of Q4_K and Q5_K: eight scales and eight minimums of 6 bits in 12 bytes. Those of the
// first four groups are the low bits of bytes 0 to 3 and 4 to 7; the others have their low four
// bits in bytes 8 to 11 and their high two on top of the first eight bytes.
ScaleAndMinimum GroupOf(const uint8_t* packed, size_t g) noexcept {
  if (g < 4) return {packed[g] & 63, packed[g + 4] & 63};
  return {(packed[g + 4] & 15) | (packed[g - 4] >> 6) << 4, (packed[g + 4] >> 4) | (packed[g] >> 6)
                                                                                       << 4};
}

// Group g of Q3_K: sixteen scales of 6 bits; the low four are nibbles of bytes 0 to 7, the high two
// lie in bytes 8 to 11.
int Q3ScaleOf(const uint8_t* packed, size_t g) noexcept {
  const int low = g < 8 ? packed[g] & 15 : packed[g - 8] >> 4;
  const int high = (packed[8 + g % 4] >> (2 * (g / 4))) & 3;
  return (low | high << 4) - 32;
}

}  // namespace

// Bytes 0-15: scale (low nibble) and minimum of each group; 16-79: quants, 32 bytes per half block,
// two bits per run of 32 weights from the lowest; 80: d; 82: m.
void DequantizeQ2K(const std::byte* block, float* weights) noexcept {
  const uint8_t *groups = Bytes(block), *quants = groups + 16;
  const float d = LoadHalf(groups + 80), m = LoadHalf(groups + 82);
  for (size_t half = 0; half < 2; ++half, quants += 32) {
    for (size_t shift = 0; shift < 8; shift += 2) {
      for (size_t part = 0; part < 2; ++part, ++groups, weights += 16) {
        const float scale = d * static_cast<float>(*groups & 15);
        const float minimum = m * static_cast<float>(*groups >> 4);
        for (size_t i = 0; i < 16; ++i)
          weights[i] = scale * static_cast<float>((quants[16 * part + i] >> shift) & 3) - minimum;
      }
    }
  }
}

// Bytes 0-31: third bits, bit j of byte i for weight 32 j + i; 32-95: low two bits as in Q2_K;
// 96-107: scales; 108: d.
void DequantizeQ3K(const std::byte* block, float* weights) noexcept {
  const uint8_t *high = Bytes(block), *quants = high + 32, *scales = high + 96;
  const float d = LoadHalf(high + 108);
  for (size_t g = 0; g < 16; ++g, weights += 16) {
    const float scale = d * static_cast<float>(Q3ScaleOf(scales, g));
    const uint8_t* low = quants + 32 * (g / 8) + 16 * (g % 2);
    const uint8_t* top = high + 16 * (g % 2);
    const size_t low_shift = g % 8 / 2 * 2, top_shift = g / 2;
    for (size_t i = 0; i < 16; ++i) {
      const int quant = ((low[i] >> low_shift) & 3) | ((top[i] >> top_shift) & 1) << 2;
      weights[i] = scale * static_cast<float>(quant - 4);
    }
  }
}

// Bytes 0: d; 2: m; 4-15: scales and minimums; 16-143: nibbles, 32 bytes for two groups, the first
// in the low ones.
void DequantizeQ4K(const std::byte* block, float* weights) noexcept {
  const uint8_t *packed = Bytes(block) + 4, *quants = packed + 12;
  const float d = LoadHalf(packed - 4), m = LoadHalf(packed - 2);
  for (size_t g = 0; g < 8; g += 2, quants += 32, weights += 64) {
    const ScaleAndMinimum low = GroupOf(packed, g), high = GroupOf(packed, g + 1);
    const float low_scale = d * static_cast<float>(low.scale);
    const float low_minimum = m * static_cast<float>(low.minimum);
    const float high_scale = d * static_cast<float>(high.scale);
    const float high_minimum = m * static_cast<float>(high.minimum);
    for (size_t i = 0; i < 32; ++i)
      weights[i] = low_scale * static_cast<float>(quants[i] & 15) - low_minimum;
    for (size_t i = 0; i < 32; ++i)
      weights[i + 32] = high_scale * static_cast<float>(quants[i] >> 4) - high_minimum;
  }
}

// As Q4_K, with 32 bytes of fifth bits before the nibbles: bit g of byte i for weight i of group g.
void DequantizeQ5K(const std::byte* block, float* weights) noexcept {
  const uint8_t *packed = Bytes(block) + 4, *top = packed + 12, *quants = top + 32;
  const float d = LoadHalf(packed - 4), m = LoadHalf(packed - 2);
  for (size_t g = 0; g < 8; ++g, weights += 32) {
    const ScaleAndMinimum group = GroupOf(packed, g);
    const float scale = d * static_cast<float>(group.scale);
    const float minimum = m * static_cast<float>(group.minimum);
    const uint8_t* low = quants + 32 * (g / 2);
    const size_t shift = g % 2 * 4;
    for (size_t i = 0; i < 32; ++i) {
      const int quant = ((low[i] >> shift) & 15) | ((top[i] >> g) & 1) << 4;
      weights[i] = scale * static_cast<float>(quant) - minimum;
    }
  }
}

// Bytes 0-127: low nibbles; 128-191: top two bits; 192-207: scales; 208: d.
void DequantizeQ6K(const std::byte* block, float* weights) noexcept {
  const uint8_t *low = Bytes(block), *top = low + 128, *scales = low + 192;
  const float d = LoadHalf(low + 208);
  for (size_t g = 0; g < 16; ++g, weights += 16) {
    const float scale = d * static_cast<float>(static_cast<int8_t>(scales[g]));
    // Half a block is 64 bytes of nibbles: low ones of the first 32 and the last 32 bytes, then
    // the high ones; its 32 bytes of top bits hold two bits for each of these four rows.
    const size_t half = g / 8, row = g % 8 / 2, column = 16 * (g % 2);
    const uint8_t* nibbles = low + 64 * half + 32 * (row % 2) + column;
    const uint8_t* bits = top + 32 * half + column;
    const size_t nibble_shift = 4 * (row / 2), bit_shift = 2 * row;
    for (size_t i = 0; i < 16; ++i) {
      const int quant = ((nibbles[i] >> nibble_shift) & 15) | ((bits[i] >> bit_shift) & 3) << 4;
      weights[i] = scale * static_cast<float>(quant - 32);
    }
  }
}

// Bytes 0-3: d, f32; 4-259: quants; then sums of 16 quants each, which only dot products use.
void DequantizeQ8K(const std::byte* block, float* weights) noexcept {
  float d;
  std::memcpy(&d, block, sizeof(d));
  const auto* quants = reinterpret_cast<const int8_t*>(block + 4);
  for (size_t i = 0; i < 256; ++i) weights[i] = d * static_cast<float>(quants[i]);
}

// Bytes 0: d; 2: high two bits of the scales; 4-7: their low nibbles; 8-135: quants, 16 bytes a
// group.
void DequantizeIq4Xs(const std::byte* block, float* weights) noexcept {
  const uint8_t *bytes = Bytes(block), *low = bytes + 4, *quants = bytes + 8;
  const float d = LoadHalf(bytes);
  uint16_t high;
  std::memcpy(&high, bytes + 2, sizeof(high));
  for (size_t g = 0; g < 8; ++g, quants += 16, weights += 32) {
    const int scale = ((low[g / 2] >> (4 * (g % 2))) & 15) | ((high >> (2 * g)) & 3) << 4;
    const float step = d * static_cast<float>(scale - 32);
    for (size_t i = 0; i < 16; ++i) weights[i] = step * kIq4Levels[quants[i] & 15];
    for (size_t i = 0; i < 16; ++i) weights[i + 16] = step * kIq4Levels[quants[i] >> 4];
  }
}

}  // namespace lwm::io
