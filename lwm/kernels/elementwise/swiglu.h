#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// The gate of a feed-forward layer: a = silu(g) * u with silu(g) = g / (1 + exp(-g)).
//
//   g_N, u_N  in   f32 or bf16 (as its bits) [n], any alignment
//   a_N       out  same type; exactly g_N or u_N, or disjoint from both
//
// Arithmetic in f32; bf16 results are rounded once, to nearest even. NaN stays in its element.
// Accuracy: f32 relative error <= 5e-7 against f64 where |g| <= 80 (beyond, exp flushes to 0).
// Cost: 3 elements moved, about 20 flop. Threads: call on disjoint ranges.
void Swiglu(const float* g_N, const float* u_N, size_t n, float* a_N) noexcept;
void Swiglu(const uint16_t* g_N, const uint16_t* u_N, size_t n, uint16_t* a_N) noexcept;

// Turns (da, g, u) into (a, dg, du) in one pass, for the three weight gradients of the layer. In
// place: da becomes a, g becomes dg, u becomes du.
//   dg = da * u * s * (1 + g * (1 - s)), du = da * silu(g), s = 1 / (1 + exp(-g))
void SwigluBackward(float* da_to_a_N, float* g_to_dg_N, float* u_to_du_N, size_t n) noexcept;
void SwigluBackward(uint16_t* da_to_a_N, uint16_t* g_to_dg_N, uint16_t* u_to_du_N,
                    size_t n) noexcept;

}  // namespace lwm::kernels
