#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "lwm/io/dtype.h"

namespace lwm::io {

// GGUF's tensor types, numbered as in its files. Block types hold 32 weights: Q8_0 = f16 scale d
// and 32 int8 q, weight d*q; Q4_0 = f16 d and 16 bytes, weight d*(q-8), the low four bits of byte j
// are weight j, the high ones weight j+16; Q4_1 = f16 d, f16 m and 16 bytes, weight d*q+m.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ8_0 = 8,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
};
constexpr size_t kGgufBlock = 32;

struct GgufTypeInfo {
  GgufType type;
  std::string_view name;  // "Q8_0"
  DType dtype;            // what it is read as
  size_t block;           // weights per block: 1 or 32
  size_t bytes;           // per block
};

// Nothing for a number this program does not read.
std::optional<GgufTypeInfo> FindGgufType(uint32_t number) noexcept;
std::optional<GgufTypeInfo> FindGgufType(std::string_view name) noexcept;

// f32 weights of whole blocks: blocks.size() / bytes-per-block * 32 == weights.size(). Arithmetic
// in f32: the product is rounded before Q4_1 adds m.
void Dequantize(GgufType type, std::span<const std::byte> blocks,
                std::span<float> weights) noexcept;

// The reverse, for Q8_0 (scale = largest magnitude / 127) and Q4_0 (scale = value of largest
// magnitude / -8); the scale is rounded to f16 for storing, not for quantising. Weights are finite.
void Quantize(GgufType type, std::span<const float> weights, std::span<std::byte> blocks) noexcept;

// IEEE half precision, round to nearest even; NaN stays NaN, overflow is infinite.
float HalfToFloat(uint16_t half) noexcept;
uint16_t FloatToHalf(float value) noexcept;

}  // namespace lwm::io
