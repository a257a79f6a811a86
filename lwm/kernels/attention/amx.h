#pragma once

#include <cstddef>
#include <cstdint>

#include "lwm/kernels/attention/bf16.h"

namespace lwm::kernels {

// Attention of tile pairs in bf16 with Intel AMX. Scores, softmax and products of one block of
// queries follow each other in the first-level cache, and every operand is laid out in whole tile
// registers of 1 KB. Arguments and layouts as in bf16.h, and
//
//   rows of x_CN       [C/16][N/32] of 16 rows c x 32 columns n

// Only where AmxAvailable() (base/instruction_set.h). Defined in amx_forward.cc, amx_backward.cc
// and, for packing, bf16_pack.cc; amx.cc has those of other machines.

// rows of x_RC, as PackPairs. rows R a multiple of 16.
bool AmxPackRows(const void* const* rows_R, int rows, int head_dim, uint16_t* blocks) noexcept;

// rows of the transpose x_CR of a row-major x_RC. rows R a multiple of 32, cols C of 16.
void AmxPackTransposedRows(const uint16_t* x_RC, int rows, int cols, uint16_t* blocks) noexcept;
// The same from x_RC in the layout of AmxPackRows. cols a multiple of 32.
void AmxTransposeRows(const uint16_t* x_RC_rows, int rows, int cols, uint16_t* x_CR_rows) noexcept;

// Sizes of Bf16Scratch, in numbers. Forward: kAmxForwardScores each of s and p. Backward:
// kAmxBackwardScores of s, rows * (keys + kAmxBackwardPairs) of p.
constexpr size_t kAmxForwardScores = 8 * 1024;
constexpr size_t kAmxBackwardScores = 7 * 1024;
constexpr size_t kAmxBackwardPairs = 128;

void AmxForward(const Bf16TileShape& shape, const Bf16ForwardTask& task,
                const Bf16Scratch& scratch) noexcept;

struct AmxBackwardTask {
  const uint16_t *q_RK_rows, *dout_RK_rows;  // rows
  const uint16_t *q_KR_rows, *dout_KR_rows;  // rows of the transposes
  const uint16_t *k_pairs, *v_pairs;         // pairs of k^T, v^T [K, N]
  const uint16_t* k_NK_pairs;                // pairs of k [N, K], in halves
  // q_RK_rows to dout_KR_rows of the next call, one after the other: fetched meanwhile; or nullptr
  const void* next_queries;
  float scale;
  const TileMask* mask;
  const float *lse_R, *delta_R;
  // in/out  f32 [K/32][N/32] blocks of [32, 32]: transposed gradients of the keys. A block of keys
  // without keys_started [N/32] is undefined: the first addition sets it, and the flag.
  float *dk_KN, *dv_KN;
  bool* keys_started;
  // in/out  R rows of head_dim numbers, f32, any alignment, added to; nullptr: not wanted
  float* const* dq_rows;
  int head_dim;
};
void AmxBackward(const Bf16TileShape& shape, const AmxBackwardTask& task,
                 const Bf16Scratch& scratch) noexcept;

// x_NK, f32 row-major = the transpose of blocks_KN as above; 0 where keys have not started.
void AmxTransposeBlocks(const float* blocks_KN, const bool* keys_started, int keys, int dim,
                        float* x_NK) noexcept;

}  // namespace lwm::kernels
