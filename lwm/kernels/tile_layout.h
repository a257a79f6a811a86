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

}  // namespace lwm::kernels
