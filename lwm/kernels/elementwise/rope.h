#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// Rotates the pairs (i, i + K/2) of every head of every token, in place:
//   x[i] = x[i] cos[i] - x[i + K/2] sin[i],  x[i + K/2] = x[i + K/2] cos[i] + x[i] sin[i]
// and with `inverse` by the opposite angle.
//
//   x_THK           in-out  f32 or bf16 (as its bits); strides in elements, heads contiguous inside
//   cos_TR, sin_TR  in      f32 [tokens, K/2], row-major
//
// Arithmetic in f32; bf16 is rounded once, to nearest even. NaN stays in its pair.
// Cost: x read and written once. Threads: call on disjoint tokens.
struct RopeShape {
  size_t tokens, heads, head_dim;  // head_dim is even
  size_t token_stride, head_stride;
};
void Rope(float* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
          bool inverse) noexcept;
void Rope(uint16_t* x_THK, const RopeShape& shape, const float* cos_TR, const float* sin_TR,
          bool inverse) noexcept;

}  // namespace lwm::kernels
