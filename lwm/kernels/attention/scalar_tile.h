#pragma once

#include "lwm/kernels/attention/tile.h"

namespace lwm::kernels {

// Attention of a tile pair by its definition, number by number. The other kernels multiply hidden
// values by a weight of 0, but 0 x NaN and 0 x Inf are NaN and would poison every query of the
// tile. Here a key that a query does not see is never read. Slow; for partly masked pairs with such
// numbers.

// As AttentionForwardTile::Run, but q, k and v are unpacked rows; missing ones must be hidden by
// the mask.
void ScalarTileForward(const AttentionTileShape& shape, const AttentionRows& queries,
                       const AttentionRows& keys, float scale, const TileMask& mask,
                       const SoftmaxState& state) noexcept;

struct ScalarTileGradients {
  const float *lse_R, *delta_R;  // in, as AttentionBackwardTile::Run
  float *dk_NK, *dv_NK;          // in/out  [keys, padded_dim], added to
  float* dq_RK;                  // out  [rows, padded_dim], set
};
// As AttentionBackwardTile::Run, but the gradients are the caller's.
void ScalarTileBackward(const AttentionTileShape& shape, const AttentionRows& queries,
                        const AttentionRows& keys, float scale, const TileMask& mask,
                        const ScalarTileGradients& gradients) noexcept;

}  // namespace lwm::kernels
