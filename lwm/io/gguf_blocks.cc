#include "lwm/io/gguf_blocks.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>

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
};

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

// The largest magnitude. The bits of finite magnitudes are ordered as the numbers are.
float LargestMagnitude(const float* weights) noexcept {
  int32_t largest = 0;
  for (size_t i = 0; i < kGgufBlock; ++i)
    largest = std::max(largest, std::bit_cast<int32_t>(weights[i]) & 0x7fffffff);
  return std::bit_cast<float>(largest);
}

// std::round for magnitudes below 2^22, in a form that compilers make vectors of.
int32_t RoundHalfAway(float value) noexcept {
  constexpr float kBelowHalf = 0x1.fffffep-2f;  // with 0.5 itself, what lies just below would rise
  return static_cast<int32_t>(value + std::copysign(kBelowHalf, value));
}

void QuantizeQ8_0(const float* weights, std::byte* block) noexcept {
  const float scale = LargestMagnitude(weights) / 127;
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

void Dequantize(GgufType type, std::span<const std::byte> blocks,
                std::span<float> weights) noexcept {
  const size_t bytes = FindGgufType(static_cast<uint32_t>(type))->bytes;
  const std::byte* block = blocks.data();
  for (size_t i = 0; i < weights.size(); i += kGgufBlock, block += bytes) {
    float* out = weights.data() + i;
    if (type == GgufType::kQ8_0) DequantizeQ8_0(block, out);
    if (type == GgufType::kQ4_0) DequantizeQ4(block + 2, LoadHalf(block), 8, 0, out);
    if (type == GgufType::kQ4_1)
      DequantizeQ4(block + 4, LoadHalf(block), 0, LoadHalf(block + 2), out);
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
