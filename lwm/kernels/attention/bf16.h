#pragma once

#include <cstddef>
#include <cstdint>

#include "lwm/kernels/attention/softmax_tile.h"

namespace lwm::kernels {

// Attention of tile pairs in bf16 with AVX512-BF16, for processors without AMX. Layouts and shapes
// are shared with the AMX kernels (amx.h). Same mathematics and arguments as
// AttentionForwardTile and AttentionBackwardTile; dim (K) is padded to 32, rows (R) and keys (N)
// are multiples of 64, at most 1024. Blocks of 32 queries x 32 keys that a mask hides are skipped.
// Matrices are bf16 unless said otherwise, and 64-byte aligned.
//
// Block layout ("registers" of 16 rows x 64 bytes, one after another):
//   pairs of x_CN      [N/16][C/32] of 16 pairs of rows c x 16 columns n x 2

// Only where Avx512Bf16Available() (base/instruction_set.h). Defined in avx512_forward.cc,
// avx512_backward.cc and, for packing, bf16_pack.cc; bf16.cc has those of other machines.

// Both read rows of head_dim numbers of any alignment, nullptr where missing, and write them padded
// with zeros to a multiple of 32 (C, or N). They return whether all numbers are finite.
//
// pairs of the transpose x_CN of x_NC. rows N a multiple of 16.
bool PackTransposedPairs(const void* const* rows_N, int rows, int head_dim,
                         uint16_t* pairs) noexcept;
// pairs of x_CN itself, in halves: a pair is rows i and 16 + i of 32. rows C a multiple of 32.
bool PackPairs(const void* const* rows_C, int rows, int head_dim, uint16_t* pairs) noexcept;

struct Bf16TileShape {
  int rows, keys, dim;
};
constexpr int kBf16MostKeys = 1024;  // and rows

struct Bf16ForwardTask {
  const uint16_t* q_RK;     // row-major
  const uint16_t* k_pairs;  // pairs of k^T [K, N]
  const uint16_t* v_pairs;  // pairs of v [N, K], in halves
  const void* next_keys;    // k_pairs and v_pairs of the next call, one after the other; or nullptr
  float scale;
  const TileMask* mask;
  // in/out  as SoftmaxState, but max may be up to 5 (nats) below the largest score: the sums
  // are relative to it, and need no rescaling while the largest score grows little
  float *max_R, *sum_R, *acc_RK;
};

// Scratch that a thread keeps between calls; the constants below give sizes in numbers.
struct Bf16Scratch {
  float* s;
  uint16_t* p;
};
constexpr size_t kAvx512ForwardScores = 4 * 1024;  // of s and of p
void Avx512Forward(const Bf16TileShape& shape, const Bf16ForwardTask& task,
                   const Bf16Scratch& scratch) noexcept;

struct Avx512BackwardTask {
  const uint16_t *q_RK, *dout_RK;              // row-major
  const uint16_t *q_RK_pairs, *dout_RK_pairs;  // pairs of q, dout [R, K], in halves
  const uint16_t *k_pairs, *v_pairs;           // pairs of k^T, v^T [K, N]
  const uint16_t* k_NK_pairs;                  // pairs of k [N, K], in halves
  float scale;
  const TileMask* mask;
  const float *lse_R, *delta_R;
  // in/out  f32 row-major: gradients of the keys. 32 keys without keys_started [N/32] are
  // undefined: the first addition sets them, and the flag.
  float *dk_NK, *dv_NK;
  bool* keys_started;
  // in/out  R rows of head_dim numbers, f32, any alignment, added to; nullptr: not wanted
  float* const* dq_rows;
  int head_dim;
};
// Numbers of scratch: s f32, p bf16.
constexpr size_t kAvx512BackwardPairs = 3 * 128 * 128;
constexpr size_t Avx512BackwardScores(int dim) {
  return 2 * 32 * 128 + 128 * static_cast<size_t>(dim);
}
void Avx512Backward(const Bf16TileShape& shape, const Avx512BackwardTask& task,
                    const Bf16Scratch& scratch) noexcept;

}  // namespace lwm::kernels
