#pragma once

#include <bit>
#include <cstdint>

namespace lwm::kernels {

// bf16 as its bits: the upper half of an f32.
constexpr float FloatFromBf16(uint16_t bits) {
  return std::bit_cast<float>(static_cast<uint32_t>(bits) << 16);
}

// To nearest, ties to even; NaN becomes the quiet NaN.
constexpr uint16_t Bf16FromFloat(float value) {
  if (value != value) return 0x7FC0;
  const auto bits = std::bit_cast<uint32_t>(value);
  return static_cast<uint16_t>((bits + 0x7FFF + ((bits >> 16) & 1)) >> 16);
}

}  // namespace lwm::kernels
