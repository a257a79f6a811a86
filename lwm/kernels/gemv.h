#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// Matrix times a few vectors, one pass over the matrix: y[m,r] = sum over c of w[r,c] * x[m,c].
// A decoding step is made of these; it is bound by the memory that w comes from.
//
//   w_RC  in   f32 or bf16 (as its bits) [rows, cols]  row-major, row stride = cols
//   x_MC  in   the same type [vectors, cols]           row-major, row stride = cols
//   y_MR  out  f32 [vectors, rows], row stride = y_stride; disjoint from the inputs
//
// Domain: any sizes >= 0, any alignment; NaN and Inf reach the outputs whose sums they enter.
// Accuracy: |error| <= 2^-24 * (2 + sqrt(cols) / 2) * sum over c of |w x| against f64 (products of
// bf16 are exact in f32); gemv_test.cc holds it there. A row's bits depend on neither `rows` nor
// `vectors`.
// Cost: reads w once for up to 4 vectors, from cache for each 4 beyond.
// Threads: call on disjoint ranges of rows.
void Gemv(const float* w_RC, size_t rows, size_t cols, const float* x_MC, size_t vectors,
          float* y_MR, size_t y_stride) noexcept;
void Gemv(const uint16_t* w_RC, size_t rows, size_t cols, const uint16_t* x_MC, size_t vectors,
          float* y_MR, size_t y_stride) noexcept;

}  // namespace lwm::kernels
