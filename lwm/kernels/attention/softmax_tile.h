#pragma once

#include <cstdint>

#include "lwm/kernels/matmul_tile.h"

namespace lwm::kernels {

// Which keys of a tile each of its queries sees: key n is seen by query r when
// begin_R[r] <= key_index_N[n] <= index_R[r]. A query with index -1 and begin 0 sees no key, a key
// with index -1 is seen by no query.
struct TileMask {
  const int32_t* key_index_N;
  const int32_t* begin_R;
  const int32_t* index_R;
};

// One step of the online softmax (Milakov and Gimelshein 2018, "Online normalizer calculation for
// softmax") over a tile of raw scores s; the softmax is of scale * s.
//
//   s_RN    in/out  f32 [rows, keys] row-major; the masked entries become -inf
//   mask    in      nullptr: every query sees every key
//   max_R   in/out  f32 [rows], largest scale * s so far, -inf before the first
//   sum_R   in/out  f32 [rows], sum of exp(scale * s - max)
//   acc_RK  in/out  f32 [rows, dim], multiplied by exp(old max - new max)
//   p_RN    out     `type` [rows, keys]: exp(scale * s - max), 0 where masked
//
// Domain: scale > 0, keys a multiple of 64, dim of 16; every buffer 64-byte aligned. NaN in a row
// stays in that row; a masked NaN has no effect.
// Accuracy: p relative 3e-7 + 1e-7 * |scale * s| for f32, 2^-8 for bf16; 0 below 2^-126
// (softmax_tile_test.cc).
void OnlineSoftmaxTile(TileType type, int rows, int keys, int dim, float scale,
                       const TileMask* mask, float* s_RN, float* max_R, float* sum_R, float* acc_RK,
                       void* p_RN) noexcept;

// Probabilities and score gradients of a tile, from the log-sum-exp of whole rows:
// p = exp(scale * s - lse), ds = scale * p * (dp - delta); both 0 where masked.
//
//   s_RN, dp_RN   in   f32 [rows, keys]
//   lse_R         in   f32 [rows]; -inf: the query saw nothing, its p and ds are 0
//   delta_R       in   f32 [rows]
//   p_RN, ds_RN   out  `type` [rows, keys]
//
// Domain, accuracy as OnlineSoftmaxTile.
void SoftmaxGradientTile(TileType type, int rows, int keys, float scale, const TileMask* mask,
                         const float* s_RN, const float* dp_RN, const float* lse_R,
                         const float* delta_R, void* p_RN, void* ds_RN) noexcept;

}  // namespace lwm::kernels
