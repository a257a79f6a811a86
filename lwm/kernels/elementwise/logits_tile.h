#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// One tile of logits [rows, cols] of a softmax over many tiles: each row's largest logit and the
// sum of exp(logit - largest), both of this tile only. The exponentials are kept in bf16: their
// error is relative, where logits in bf16 would have errors that exp magnifies. ScaleBf16 with
// exp(largest of the tile - largest of all) / (sum of all) turns them into probabilities.
//
//   logits_MN    in   f32 [rows, cols], row-major, row stride = cols
//   largest_M    out  f32 [rows]
//   sum_M        out  f32 [rows]; NaN when the row holds a NaN
//   exp_MN       out  bf16 (as its bits) [rows, cols], row stride = exp_stride; or nullptr
//
// Domain: rows >= 0, cols >= 1, any alignment. Accuracy: sum within 2^-24 * (8 + cols / 16)
// relative. Threads: call on disjoint tiles.
void SoftmaxOfTile(const float* logits_MN, size_t rows, size_t cols, float* largest_M, float* sum_M,
                   uint16_t* exp_MN, size_t exp_stride) noexcept;

// x[i] *= factor in f32, rounded once to nearest even.
void ScaleBf16(uint16_t* x_N, size_t n, float factor) noexcept;

}  // namespace lwm::kernels
