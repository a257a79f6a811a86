#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

struct RmsNormShape {
  size_t rows, cols;
  float eps;  // > 0, in units of x^2
};

// Row-wise RMS normalisation: y[r,c] = x[r,c] * w[c] / sqrt(mean over c of x[r,c]^2 + eps).
//
//   x_RC  in   f32 or bf16 (as its bits) [rows, cols]  row-major, row stride = cols
//   w_C   in   f32 [cols]
//   y_RC  out  same type as x; exactly x_RC (in place) or disjoint from it
//
// Domain: rows >= 0, cols >= 1, any alignment; NaN and Inf in a row stay in that row.
// Accuracy: f32 relative error <= 2^-24 * (6 + sqrt(cols) / 4) against f64 (on vector targets);
// bf16 results are that, rounded once to nearest even. Cost: memory-bound. Threads: call on
// disjoint rows.
void RmsNorm(const float* x_RC, const float* w_C, const RmsNormShape& shape, float* y_RC) noexcept;
void RmsNorm(const uint16_t* x_RC, const float* w_C, const RmsNormShape& shape,
             uint16_t* y_RC) noexcept;

// With n = 1 / sqrt(mean x^2 + eps) of the row: dx = n * (dy w - x n^2 mean(dy w x)), and
// dw_C += sum over the rows of dy x n (f32, in row order).
//
//   dy_RC, x_RC  in      same type, as above
//   dx_RC        out     same type; exactly dy_RC or x_RC, or disjoint from both
//   dw_C         in-out  f32 [cols]
void RmsNormBackward(const float* dy_RC, const float* x_RC, const float* w_C,
                     const RmsNormShape& shape, float* dx_RC, float* dw_C) noexcept;
void RmsNormBackward(const uint16_t* dy_RC, const uint16_t* x_RC, const float* w_C,
                     const RmsNormShape& shape, uint16_t* dx_RC, float* dw_C) noexcept;

}  // namespace lwm::kernels
