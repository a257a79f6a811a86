#pragma once

#include <cstddef>
#include <cstdint>

#include "lwm/kernels/softmax_tile.h"

namespace lwm::kernels {

// Tile pairs of bf16 attention in Intel AMX: scores, softmax and products of one block of queries
// follow each other in the first-level cache, and every operand is laid out in whole 1 KB
// registers. Same mathematics and arguments as AttentionForwardTile and AttentionBackwardTile; dim
// (K) is padded to 32, rows (R) and keys (N) are multiples of 64, at most 1024. Matrices are bf16
// unless said otherwise, and 64-byte aligned.
//
// Block layouts ("registers" of 16 rows x 64 bytes, one after another):
//   pairs of x_CN      [N/16][C/32] of 16 pairs of rows c x 16 columns n x 2
//   rows of x_CN       [C/16][N/32] of 16 rows c x 32 columns n

// Whether this CPU, and its operating system, has AMX and AVX512-BF16. Asks once for permission;
// the other functions must not be called without.
bool AmxAvailable() noexcept;

// These read rows of head_dim numbers of any alignment, nullptr where missing, and write them
// padded with zeros to a multiple of 32 (C, or N). Return whether all numbers are finite.
//
// pairs of the transpose: x_NC, seen as x_CN. rows N a multiple of 16.
bool AmxPackTransposedPairs(const void* const* rows_N, int rows, int head_dim,
                            uint16_t* pairs) noexcept;
// pairs of x_CN itself, in halves: a pair is rows i and 16 + i of 32. rows C a multiple of 32.
bool AmxPackPairs(const void* const* rows_C, int rows, int head_dim, uint16_t* pairs) noexcept;

// rows of x_RC. rows R a multiple of 16.
bool AmxPackRows(const void* const* rows_R, int rows, int head_dim, uint16_t* blocks) noexcept;

// rows of the transpose: x_RC seen as x_CR. rows R a multiple of 32, cols C of 16.
void AmxPackTransposedRows(const uint16_t* x_RC, int rows, int cols, uint16_t* blocks) noexcept;
// The same, of x_RC that is in rows already. cols a multiple of 32.
void AmxTransposeRows(const uint16_t* x_RC_rows, int rows, int cols, uint16_t* x_CR_rows) noexcept;

struct AmxShape {
  int rows, keys, dim;
};
constexpr int kAmxMostKeys = 1024;  // and rows

// Scratch that a thread keeps between calls: numbers of each kind for a shape.
struct AmxScratch {
  float* s;     // forward kAmxForwardScores, backward kAmxBackwardScores
  uint16_t* p;  // forward kAmxForwardScores, backward rows * (keys + kAmxBackwardPairs)
};
constexpr size_t kAmxForwardScores = 8 * 1024;
constexpr size_t kAmxBackwardScores = 7 * 1024;
constexpr size_t kAmxBackwardPairs = 128;

struct AmxForwardTask {
  const uint16_t* q_RK;     // row-major
  const uint16_t* k_pairs;  // pairs of k^T [K, N]
  const uint16_t* v_pairs;  // pairs of v [N, K], in halves
  const void* next_keys;  // k_pairs and v_pairs, one after the other, of the next call, or nullptr
  float scale;
  const TileMask* mask;
  // in/out  as OnlineSoftmaxTile, but max is only what the sums are relative to: at most 5 (nats)
  // below the largest score, so that they need no rescaling while it hardly grows
  float *max_R, *sum_R, *acc_RK;
};
void AmxForward(const AmxShape& shape, const AmxForwardTask& task,
                const AmxScratch& scratch) noexcept;

struct AmxBackwardTask {
  const uint16_t *q_RK_rows, *dout_RK_rows;  // rows
  const uint16_t *q_KR_rows, *dout_KR_rows;  // rows of the transposes
  const uint16_t *k_pairs, *v_pairs;         // pairs of k^T, v^T [K, N]
  const uint16_t* k_NK_pairs;                // pairs of k [N, K], in halves
  const void* next_queries;  // the q_RK_rows to dout_KR_rows of the next call, one after the other
  float scale;
  const TileMask* mask;
  const float *lse_R, *delta_R;
  // in/out  f32 [K/32][N/32] blocks of [32, 32]: transposed gradients of the keys, defined where
  // keys_started, [N/32], says so; it becomes true where something was added
  float *dk_KN, *dv_KN;
  bool* keys_started;
  // in/out  R rows of head_dim numbers, f32, any alignment; nullptr: nobody wants it
  float* const* dq_rows;
  int head_dim;
};
void AmxBackward(const AmxShape& shape, const AmxBackwardTask& task,
                 const AmxScratch& scratch) noexcept;

// x_NK, f32 row-major, = the transpose of blocks_KN as above, 0 where they have not started.
void AmxTransposeBlocks(const float* blocks_KN, const bool* keys_started, int keys, int dim,
                        float* x_NK) noexcept;

}  // namespace lwm::kernels
