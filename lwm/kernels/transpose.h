#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// to[c,r] = from[r,c], of 2-byte elements (bf16 as its bits).
//
//   from_RC  in   [rows, cols], row stride = from_stride
//   to_CR    out  [cols, rows], row stride = to_stride; disjoint from from_RC
//
// Cost: reads and writes whole cache lines when rows and cols are multiples of 32.
// Threads: call on disjoint ranges of rows or columns.
void Transpose(const uint16_t* from_RC, size_t rows, size_t cols, size_t from_stride,
               uint16_t* to_CR, size_t to_stride) noexcept;

}  // namespace lwm::kernels
