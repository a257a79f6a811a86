#include "lwm/io/gguf_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <utility>

#include "lwm/io/super_blocks.h"

namespace lwm::io {
namespace {

constexpr GgufTypeInfo kTypes[] = {
    {GgufType::kF32, "F32", DType::kF32, 1, 4},
    {GgufType::kF16, "F16", DType::kF16, 1, 2},
    {GgufType::kBF16, "BF16", DType::kBF16, 1, 2},
    {GgufType::kF64, "F64", DType::kF64, 1, 8},
    {GgufType::kI8, "I8", DType::kI8, 1, 1},
    {GgufType::kI16, "I16", DType::kI16, 1, 2},
    {GgufType::kI32, "I32", DType::kI32, 1, 4},
    {GgufType::kI64, "I64", DType::kI64, 1, 8},
    {GgufType::kQ8_0, "Q8_0", DType::kF32, kGgufBlock, 34},
    {GgufType::kQ4_0, "Q4_0", DType::kF32, kGgufBlock, 18},
    {GgufType::kQ4_1, "Q4_1", DType::kF32, kGgufBlock, 20},
    {GgufType::kQ5_0, "Q5_0", DType::kF32, kGgufBlock, 22},
    {GgufType::kQ5_1, "Q5_1", DType::kF32, kGgufBlock, 24},
    {GgufType::kQ2_K, "Q2_K", DType::kF32, kLargestGgufBlock, 84},
    {GgufType::kQ3_K, "Q3_K", DType::kF32, kLargestGgufBlock, 110},
    {GgufType::kQ4_K, "Q4_K", DType::kF32, kLargestGgufBlock, 144},
    {GgufType::kQ5_K, "Q5_K", DType::kF32, kLargestGgufBlock, 176},
    {GgufType::kQ6_K, "Q6_K", DType::kF32, kLargestGgufBlock, 210},
    {GgufType::kQ8_K, "Q8_K", DType::kF32, kLargestGgufBlock, 292},
    {GgufType::kIQ4_NL, "IQ4_NL", DType::kF32, kGgufBlock, 18},
    {GgufType::kIQ4_XS, "IQ4_XS", DType::kF32, kLargestGgufBlock, 136},
};

// Types that are not read, for messages; some were withdrawn.
constexpr std::pair<uint32_t, std::string_view> kOtherTypes[] = {
    {4, "Q4_2"},        {5, "Q4_3"},        {9, "Q8_1"},        {16, "IQ2_XXS"}, {17, "IQ2_XS"},
    {18, "IQ3_XXS"},    {19, "IQ1_S"},      {21, "IQ3_S"},      {22, "IQ2_S"},   {29, "IQ1_M"},
    {31, "Q4_0_4_4"},   {32, "Q4_0_4_8"},   {33, "Q4_0_8_8"},   {34, "TQ1_0"},   {35, "TQ2_0"},
    {36, "IQ4_NL_4_4"}, {37, "IQ4_NL_4_8"}, {38, "IQ4_NL_8_8"}, {39, "MXFP4"},   {40, "NVFP4"},
    {41, "Q1_0"}};

float LoadHalf(const std::byte* from) noexcept {
  uint16_t half;
  std::memcpy(&half, from, sizeof(half));
  return HalfToFloat(half);
}

void StoreHalf(float value, std::byte* to) noexcept {
  const uint16_t half = FloatToHalf(value);
  std::memcpy(to, &half, sizeof(half));
}

void DequantizeQ8_0(const std::byte* block, float* weights) noexcept {
  const float scale = LoadHalf(block);
  for (size_t i = 0; i < kGgufBlock; ++i)
    weights[i] = scale * static_cast<float>(static_cast<int8_t>(block[2 + i]));
}

void DequantizeQ4(const std::byte* nibbles, float scale, float offset, float minimum,
                  float* weights) noexcept {
  for (size_t i = 0; i < kGgufBlock / 2; ++i) {
    const auto byte = static_cast<uint8_t>(nibbles[i]);
    const float low = scale * (static_cast<float>(byte & 15) - offset);
    const float high = scale * (static_cast<float>(byte >> 4) - offset);
    weights[i] = low + minimum;
    weights[i + kGgufBlock / 2] = high + minimum;
  }
}

void DequantizeQ4_0(const std::byte* block, float* weights) noexcept {
  DequantizeQ4(block + 2, LoadHalf(block), 8, 0, weights);
}

void DequantizeQ4_1(const std::byte* block, float* weights) noexcept {
  DequantizeQ4(block + 4, LoadHalf(block), 0, LoadHalf(block + 2), weights);
}

// `bits`: four bytes with the fifth bits, then the nibbles.
void DequantizeQ5(const std::byte* bits, float scale, float offset, float minimum,
                  float* weights) noexcept {
  uint32_t fifth;
  std::memcpy(&fifth, bits, sizeof(fifth));
  const auto* nibbles = reinterpret_cast<const uint8_t*>(bits + sizeof(fifth));
  for (size_t i = 0; i < kGgufBlock / 2; ++i) {
    const uint32_t low = (nibbles[i] & 15) | ((fifth >> i) & 1) << 4;
    const uint32_t high = (nibbles[i] >> 4) | ((fifth >> (i + kGgufBlock / 2)) & 1) << 4;
    weights[i] = scale * (static_cast<float>(static_cast<int32_t>(low)) - offset) + minimum;
    weights[i + kGgufBlock / 2] =
        scale * (static_cast<float>(static_cast<int32_t>(high)) - offset) + minimum;
  }
}

void DequantizeQ5_0(const std::byte* block, float* weights) noexcept {
  DequantizeQ5(block + 2, LoadHalf(block), 16, 0, weights);
}

void DequantizeQ5_1(const std::byte* block, float* weights) noexcept {
  DequantizeQ5(block + 4, LoadHalf(block), 0, LoadHalf(block + 2), weights);
}

void DequantizeIq4Nl(const std::byte* block, float* weights) noexcept {
  const float scale = LoadHalf(block);
  const auto* nibbles = reinterpret_cast<const uint8_t*>(block + 2);
  for (size_t i = 0; i < kGgufBlock / 2; ++i) {
    weights[i] = scale * kIq4Levels[nibbles[i] & 15];
    weights[i + kGgufBlock / 2] = scale * kIq4Levels[nibbles[i] >> 4];
  }
}

constexpr std::pair<GgufType, void (*)(const std::byte*, float*) noexcept> kDecoders[] = {
    {GgufType::kQ8_0, DequantizeQ8_0},    {GgufType::kQ4_0, DequantizeQ4_0},
    {GgufType::kQ4_1, DequantizeQ4_1},    {GgufType::kQ5_0, DequantizeQ5_0},
    {GgufType::kQ5_1, DequantizeQ5_1},    {GgufType::kQ2_K, DequantizeQ2K},
    {GgufType::kQ3_K, DequantizeQ3K},     {GgufType::kQ4_K, DequantizeQ4K},
    {GgufType::kQ5_K, DequantizeQ5K},     {GgufType::kQ6_K, DequantizeQ6K},
    {GgufType::kQ8_K, DequantizeQ8K},     {GgufType::kIQ4_NL, DequantizeIq4Nl},
    {GgufType::kIQ4_XS, DequantizeIq4Xs},
};

// The largest magnitude. The bits of finite magnitudes are ordered as the numbers are.
float LargestMagnitude(const float* weights) noexcept {
  int32_t largest = 0;
  for (size_t i = 0; i < kGgufBlock; ++i)
    largest = std::max(largest, std::bit_cast<int32_t>(weights[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

// std::round for magnitudes below 2^22, in a form that compilers make vectors of.
int32_t RoundHalfAway(float value) noexcept {
  // With 0.5 itself, numbers just below it would round up.
  constexpr float kBelowHalf = 0x1.fffffep-2f;
  return static_cast<int32_t>(value + std::copysign(kBelowHalf, value));
}

void QuantizeQ8_0(const float* weights, std::byte* block) noexcept {
  const float scale = LargestMagnitude(weights) / 127;
  // The inverse of a subnormal scale may be infinite; such weights are stored as 0.
  const float inverse = std::fabs(scale) >= 0x1p-126f ? 1 / scale : 0;
  StoreHalf(scale, block);
  auto* quants = reinterpret_cast<int8_t*>(block + 2);
  for (size_t i = 0; i < kGgufBlock; ++i)
    quants[i] = static_cast<int8_t>(RoundHalfAway(weights[i] * inverse));
}

void QuantizeQ4_0(const float* weights, std::byte* block) noexcept {
  const float magnitude = LargestMagnitude(weights);
  const float* largest = std::find_if(weights, weights + kGgufBlock - 1,
                                      [&](float weight) { return std::fabs(weight) == magnitude; });
  // By the signed value of largest magnitude: it becomes -8 exactly, and all 16 levels are used.
  const float scale = *largest / -8;
  const float inverse = std::fabs(scale) >= 0x1p-126f ? 1 / scale : 0;
  StoreHalf(scale, block);
  int32_t nibbles[kGgufBlock];
  for (size_t i = 0; i < kGgufBlock; ++i)
    nibbles[i] = std::min(15, static_cast<int32_t>(weights[i] * inverse + 8.5f));
  for (size_t i = 0; i < kGgufBlock / 2; ++i)
    block[2 + i] = static_cast<std::byte>(nibbles[i] | nibbles[i + kGgufBlock / 2] << 4);
}

}  // namespace

std::optional<GgufTypeInfo> FindGgufType(uint32_t number) noexcept {
  for (const GgufTypeInfo& info : kTypes)
    if (static_cast<uint32_t>(info.type) == number) return info;
  return {};
}

std::optional<GgufTypeInfo> FindGgufType(std::string_view name) noexcept {
  for (const GgufTypeInfo& info : kTypes)
    if (info.name == name) return info;
  return {};
}

std::string GgufTypeName(uint32_t number) {
  if (const auto info = FindGgufType(number)) return std::string(info->name);
  for (const auto& [other, name] : kOtherTypes)
    if (other == number) return std::string(name);
  return std::to_string(number);
}

std::string ReadableGgufTypes() {
  std::string names;
  for (const GgufTypeInfo& info : kTypes)
    names += (names.empty() ? "" : ", ") + std::string(info.name);
  return names;
}

void Dequantize(GgufType type, std::span<const std::byte> blocks,
                std::span<float> weights) noexcept {
  const GgufTypeInfo info = *FindGgufType(static_cast<uint32_t>(type));
  for (const auto& [known, decode] : kDecoders) {
    if (known != type) continue;
    const std::byte* block = blocks.data();
    for (size_t i = 0; i < weights.size(); i += info.block, block += info.bytes)
      decode(block, weights.data() + i);
  }
}

void Quantize(GgufType type, std::span<const float> weights, std::span<std::byte> blocks) noexcept {
  const size_t bytes = FindGgufType(static_cast<uint32_t>(type))->bytes;
  std::byte* block = blocks.data();
  for (size_t i = 0; i < weights.size(); i += kGgufBlock, block += bytes) {
    if (type == GgufType::kQ8_0) QuantizeQ8_0(weights.data() + i, block);
    if (type == GgufType::kQ4_0) QuantizeQ4_0(weights.data() + i, block);
  }
}

float HalfToFloat(uint16_t half) noexcept {
  const uint32_t sign = static_cast<uint32_t>(half & 0x8000) << 16;
  const uint32_t exponent = (half >> 10) & 31, mantissa = half & 1023;
  if (exponent == 0) {
    const float magnitude = static_cast<float>(mantissa) * 0x1p-24f;
    return sign ? -magnitude : magnitude;
  }
  const uint32_t wide = exponent == 31 ? 255 : exponent + 112;
  return std::bit_cast<float>(sign | wide << 23 | mantissa << 13);
}

uint16_t FloatToHalf(float value) noexcept {
  const auto bits = std::bit_cast<uint32_t>(value);
  const auto sign = static_cast<uint16_t>((bits >> 16) & 0x8000);
  const float magnitude = std::bit_cast<float>(bits & 0x7fffffff);
  if (std::isnan(value)) return static_cast<uint16_t>(sign | 0x7e00);
  if (magnitude >= 65520.0f) return static_cast<uint16_t>(sign | 0x7c00);
  // Adding 2^(e+13) leaves ten bits of mantissa, rounded to nearest even by the addition; below
  // the normal range the unit is fixed at 2^-24.
  const uint32_t exponent = std::max<uint32_t>((bits >> 23) & 255, 113);
  const float shift = std::bit_cast<float>((exponent + 13) << 23);
  const float rounded = (magnitude + shift) - shift;
  if (rounded < 0x1p-14f)
    return static_cast<uint16_t>(sign | static_cast<uint16_t>(rounded * 0x1p24f));
  const auto wide = std::bit_cast<uint32_t>(rounded);
  return static_cast<uint16_t>(sign | (((wide >> 23) - 112) << 10) | ((wide >> 13) & 1023));
}

}  // namespace lwm::io
