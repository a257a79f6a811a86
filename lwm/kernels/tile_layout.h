#pragma once

#include <cstddef>
#include <cstdint>

#include "lwm/kernels/matmul_tile.h"

namespace lwm::kernels {

// Copies rows of dim elements to out_RK [rows, padded_dim], zeros elsewhere. Returns whether every
// copied number is finite.
//
//   rows_R  in   pointers to rows of `type` [dim], any alignment; nullptr is a row of zeros
//   out_RK  out  `type`
bool GatherRows(TileType type, const void* const* rows_R, int rows, int dim, int padded_dim,
                void* out_RK) noexcept;

// y_CR = transpose of x_RC [rows, cols]; both `type`, row-major, dense, 64-byte aligned; rows and
// cols multiples of 16.
void TransposeTile(TileType type, int rows, int cols, const void* x_RC, void* y_CR) noexcept;

// to_K += from_K, f32 [dim], any alignment; disjoint.
void AddRow(const float* from_K, int dim, float* to_K) noexcept;

// Asks for `bytes` from `data` on to be brought into the second-level cache.
void FetchRow(const void* data, size_t bytes) noexcept;

// out_K = factor * x_K, x f32 [dim], out `type`, rounded to nearest; any alignment.
void ScaleRowTo(TileType type, const float* x_K, int dim, float factor, void* out_K) noexcept;

// Sum of x_K * y_K in f32; both `type` [dim], any alignment. Relative to the sum of |x y|, the
// error is below 2^-24 * (8 + dim / 8).
float DotRows(TileType type, const void* x_K, const void* y_K, int dim) noexcept;

}  // namespace lwm::kernels
