#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// Cross entropy of rows of logits, and its gradient in place of the logits.
//
//   logits_RV  in-out  f32 or bf16 (as its bits) [rows, vocab]; with weight_R given it becomes
//                      weight[r] * (softmax(row r) - one_hot(target[r]))
//   target_R   in      [rows], 0 <= target < vocab
//   weight_R   in      f32 [rows], or nullptr: forward only, logits are left alone
//   nll_R      out     f32 [rows], -log softmax(row r)[target[r]]
//
// Statistics in f32; bf16 gradients are rounded once, to nearest even. NaN stays in its row; a NaN
// anywhere in a row makes its nll NaN. A row of weight 0 has gradient 0.
// Accuracy: |nll error| <= 1e-6 + 2e-7 * (|largest logit| + |nll|) against f64 of the same logits
// (on vector targets).
// Cost: the row is read two (three with the gradient) times, all but the first from cache.
// Threads: call on disjoint rows.
void CrossEntropy(float* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                  const float* weight_R, float* nll_R) noexcept;
void CrossEntropy(uint16_t* logits_RV, size_t rows, size_t vocab, const int64_t* target_R,
                  const float* weight_R, float* nll_R) noexcept;

}  // namespace lwm::kernels
