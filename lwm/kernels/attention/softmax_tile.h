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

// The running softmax of a tile of queries over the keys so far.
struct SoftmaxState {
  float* max_R;   // f32 [rows], largest scale * s, -inf before the first key
  float* sum_R;   // f32 [rows], sum of exp(scale * s - max)
  float* acc_RK;  // f32 [rows, dim], sum of exp(scale * s - max) * v
};

// One step of the online softmax (Milakov and Gimelshein 2018, "Online normalizer calculation for
// softmax") over a tile of raw scores s; the softmax is of scale * s.
//
//   s_RN    in/out  f32 [rows, keys] row-major; the masked entries become -inf
//   mask    in      nullptr: every query sees every key
//   state   in/out  acc is only multiplied by exp(old max - new max)
//   p_RN    out     `type` [rows, keys]: exp(scale * s - max), 0 where masked
//
// Domain: scale > 0, keys a multiple of 64, dim of 16; every buffer 64-byte aligned. NaN in a row
// stays in that row; a masked NaN has no effect.
// Accuracy: p relative 3e-7 + 1e-7 * |scale * s| for f32, 2^-8 for bf16; 0 below 2^-126
// (softmax_tile_test.cc).
struct OnlineSoftmaxTask {
  TileType type;
  int rows, keys, dim;
  float scale;
  const TileMask* mask;
  float* s_RN;
  SoftmaxState state;
  void* p_RN;
};
void OnlineSoftmaxTile(const OnlineSoftmaxTask& task) noexcept;

// Probabilities and score gradients of a tile, from the log-sum-exp of whole rows:
// p = exp(scale * s - lse), ds = scale * p * (dp - delta); both 0 where masked.
//
//   mask          in   as above
//   s_RN, dp_RN   in   f32 [rows, keys]
//   lse_R         in   f32 [rows]; -inf: the query saw nothing, its p and ds are 0
//   delta_R       in   f32 [rows]
//   p_RN, ds_RN   out  `type` [rows, keys]
//
// Domain, accuracy as OnlineSoftmaxTile.
struct SoftmaxGradientTask {
  TileType type;
  int rows, keys;
  float scale;
  const TileMask* mask;
  const float *s_RN, *dp_RN, *lse_R, *delta_R;
  void *p_RN, *ds_RN;
};
void SoftmaxGradientTile(const SoftmaxGradientTask& task) noexcept;

}  // namespace lwm::kernels
