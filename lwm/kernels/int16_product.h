#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

constexpr size_t kInt16Panel = 32;  // columns

// Multiplies f32 by weights kept as 16-bit integers with a scale for each column:
//   c[r][n] = sum over k of a[r][k] * w[k][n] * scale[n].
// Half the memory traffic of f32 weights, and 15 bits of precision where bf16 would keep 8.
//
//   a_RK      in   f32 [rows, depth]
//   w_K32     in   i16 [depth, 32]
//   scale_32  in   f32 [32]
//   scratch   -    f32 [depth, 32]
//   c_R32     out  f32 [rows, 32]
//
// Sums run over k in order and in f32, so that a row does not depend on the rows beside it, nor a
// column on its neighbours. NaN and infinity stay in their row.
// Domain: any rows and alignment. Memory after w_K32, as large again, is prefetched for the next
// product; it need not exist. Cost: 2 * 32 * rows * depth flop; worth it from 12 rows on.
void Int16Product(const float* a_RK, size_t rows, size_t depth, const int16_t* w_K32,
                  const float* scale_32, float* scratch, float* c_R32) noexcept;

}  // namespace lwm::kernels
