#pragma once

#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string>
#include <string_view>

#include "lwm/io/dtype.h"

namespace lwm::io {

// GGUF's tensor types that this program reads, numbered as in its files. Blocks of 32 weights: Q8_0
// = f16 scale d and 32 int8 q, weight d*q; Q4_0 = f16 d and 16 bytes, weight d*(q-8), the low four
// bits of byte j are weight j, the high ones weight j+16; Q4_1 = f16 d, f16 m and 16 bytes, weight
// d*q+m; Q5_0, Q5_1 = the same with a fifth bit per weight in four bytes before the nibbles and
// q-16; IQ4_NL = Q4_0 with a table of 16 levels for q-8. Blocks of 256: io/super_blocks.h.
enum class GgufType : uint32_t {
  kF32 = 0,
  kF16 = 1,
  kQ4_0 = 2,
  kQ4_1 = 3,
  kQ5_0 = 6,
  kQ5_1 = 7,
  kQ8_0 = 8,
  kQ2_K = 10,
  kQ3_K = 11,
  kQ4_K = 12,
  kQ5_K = 13,
  kQ6_K = 14,
  kQ8_K = 15,
  kIQ4_NL = 20,
  kIQ4_XS = 23,
  kI8 = 24,
  kI16 = 25,
  kI32 = 26,
  kI64 = 27,
  kF64 = 28,
  kBF16 = 30,
};
constexpr size_t kGgufBlock = 32;          // weights per block of the types that are written
constexpr size_t kLargestGgufBlock = 256;  // of those that are read

struct GgufTypeInfo {
  GgufType type;
  std::string_view name;  // "Q8_0"
  DType dtype;            // of the values after reading
  size_t block;           // weights per block: 1, 32 or 256
  size_t bytes;           // per block
};

// Nothing for a number this program does not read.
std::optional<GgufTypeInfo> FindGgufType(uint32_t number) noexcept;
std::optional<GgufTypeInfo> FindGgufType(std::string_view name) noexcept;

// "IQ2_XS": the name of any type that GGUF has or had, read or not; "99" for other numbers.
std::string GgufTypeName(uint32_t number);
// "F32, F16, BF16, ...": the types that are read.
std::string ReadableGgufTypes();

// f32 weights of whole blocks: blocks.size() / bytes-per-block * weights-per-block ==
// weights.size(). Arithmetic in f32: products are rounded before a minimum is added. `type` has
// blocks. Cost: 1 to 4 GB/s of weights on one thread, bound by arithmetic.
void Dequantize(GgufType type, std::span<const std::byte> blocks,
                std::span<float> weights) noexcept;

// The reverse, for Q8_0 (scale = largest magnitude / 127) and Q4_0 (scale = value of largest
// magnitude / -8); the scale is rounded to f16 for storing, not for quantising. Weights are finite.
void Quantize(GgufType type, std::span<const float> weights, std::span<std::byte> blocks) noexcept;

// IEEE half precision, round to nearest even; NaN stays NaN, overflow is infinite.
float HalfToFloat(uint16_t half) noexcept;
uint16_t FloatToHalf(float value) noexcept;

}  // namespace lwm::io
