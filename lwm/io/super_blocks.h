#pragma once

#include <cstddef>

namespace lwm::io {

// Weights of the GGUF block types that divide 256 weights into groups with scales of their own
// (Q2_K to Q8_K, IQ4_XS). `block` holds one block of the type, `weights` takes 256 numbers. d and m
// are the block's f16 scales (Q8_K: f32), s and t a group's small integers, q a weight's:
//
//   Q2_K    d*s*q - m*t   16 groups of 16; s, t of 4 bits, q of 2
//   Q3_K    d*s*q         16 groups of 16; s of 6 bits less 32, q of 3 less 4
//   Q4_K    d*s*q - m*t   8 groups of 32; s, t of 6 bits, q of 4
//   Q5_K    d*s*q - m*t   8 groups of 32; s, t of 6 bits, q of 5
//   Q6_K    d*s*q         16 groups of 16; s int8, q of 6 bits less 32
//   Q8_K    d*q           q int8
//   IQ4_XS  d*s*v[q]      8 groups of 32; s of 6 bits less 32, v a table of 16 levels
//
// f32 arithmetic, products from the left, so every bit is that of ggml's dequantize_row_*.
// Source: the block structs of ggml-common.h and the `gguf` package of PyPI, which
// tests/golden/gguf_blocks compares with.
void DequantizeQ2K(const std::byte* block, float* weights) noexcept;
void DequantizeQ3K(const std::byte* block, float* weights) noexcept;
void DequantizeQ4K(const std::byte* block, float* weights) noexcept;
void DequantizeQ5K(const std::byte* block, float* weights) noexcept;
void DequantizeQ6K(const std::byte* block, float* weights) noexcept;
void DequantizeQ8K(const std::byte* block, float* weights) noexcept;
void DequantizeIq4Xs(const std::byte* block, float* weights) noexcept;

// v of IQ4_NL and IQ4_XS.
inline constexpr float kIq4Levels[16] = {-127, -104, -83, -65, -49, -35, -22, -10,
                                         1,    13,   25,  38,  53,  69,  89,  113};

}  // namespace lwm::io
