#include "lwm/kernels/attention/scalar_tile.h"

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>

namespace lwm::kernels {
namespace {

// Written for clarity, not for speed: these pairs are rare, a tile with a NaN or Inf on the edge of
// a mask. Each sum runs over visible pairs only, so a hidden number is never read.
float Number(TileType type, const void* row, int k) {
  if (type == TileType::kF32) return static_cast<const float*>(row)[k];
  const uint32_t bits = static_cast<const uint16_t*>(row)[k];
  return std::bit_cast<float>(bits << 16);
}

// Over head_dim: rows need not be padded.
float Dot(const AttentionTileShape& shape, const void* a, const void* b) {
  float sum = 0;
  for (int k = 0; k < shape.head_dim; ++k) {
    sum += Number(shape.type, a, k) * Number(shape.type, b, k);
  }
  return sum;
}

void AddScaled(const AttentionTileShape& shape, float factor, const void* from, float* to_K) {
  for (int k = 0; k < shape.head_dim; ++k) to_K[k] += factor * Number(shape.type, from, k);
}

// A missing row or key has index -1 and sees, or is seen by, nothing; its nullptr is never read.
bool Sees(const TileMask& mask, int r, int n) {
  return mask.begin_R[r] <= mask.key_index_N[n] && mask.key_index_N[n] <= mask.index_R[r];
}

}  // namespace

void ScalarTileForward(const AttentionTileShape& shape, const AttentionRows& queries,
                       const AttentionRows& keys, float scale, const TileMask& mask,
                       const SoftmaxState& state) noexcept {
  const auto [max_R, sum_R, acc_RK] = state;
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  for (int r = 0; r < shape.rows; ++r) {
    float* acc_K = acc_RK + static_cast<ptrdiff_t>(r) * shape.padded_dim();
    for (int n = 0; n < shape.keys; ++n) {
      if (!Sees(mask, r, n)) continue;
      const float score = scale * Dot(shape, queries.first[r], keys.first[n]);
      if (score > max_R[r]) {  // false for NaN, which then reaches the sum through p
        // The running maximum may come from a bf16 kernel and lag behind the scores; sums are
        // relative to it all the same. Before the first key there is nothing to rescale.
        const float decay = max_R[r] == kMinusInfinity ? 0.0f : std::exp(max_R[r] - score);
        std::for_each(acc_K, acc_K + shape.head_dim, [decay](float& x) { x *= decay; });
        sum_R[r] *= decay;
        max_R[r] = score;
      }
      // A score of -inf, from an infinite q or k, weighs 0 even where the maximum is -inf too.
      const float p = score == kMinusInfinity ? 0.0f : std::exp(score - max_R[r]);
      sum_R[r] += p;
      AddScaled(shape, p, keys.second[n], acc_K);
    }
  }
}

void ScalarTileBackward(const AttentionTileShape& shape, const AttentionRows& queries,
                        const AttentionRows& keys, float scale, const TileMask& mask,
                        const ScalarTileGradients& gradients) noexcept {
  const auto [lse_R, delta_R, dk_NK, dv_NK, dq_RK] = gradients;
  const ptrdiff_t stride = shape.padded_dim();
  constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();
  std::fill_n(dq_RK, shape.rows * stride, 0.0f);
  for (int r = 0; r < shape.rows; ++r) {
    if (lse_R[r] == kMinusInfinity) continue;  // saw no key
    for (int n = 0; n < shape.keys; ++n) {
      if (!Sees(mask, r, n)) continue;
      const float p = std::exp(scale * Dot(shape, queries.first[r], keys.first[n]) - lse_R[r]);
      const float dp = Dot(shape, queries.second[r], keys.second[n]);
      const float ds = scale * p * (dp - delta_R[r]);
      AddScaled(shape, p, queries.second[r], dv_NK + n * stride);
      AddScaled(shape, ds, queries.first[r], dk_NK + n * stride);
      AddScaled(shape, ds, keys.first[n], dq_RK + r * stride);
    }
  }
}

}  // namespace lwm::kernels
