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
                       const AttentionRows& keys, float scale, const TileMask& mask, float* max_R,
                       float* sum_R, float* acc_RK) noexcept;

// As AttentionBackwardTile::Run, but sets the gradients of the queries, dq_RK [rows, padded_dim],
// and adds those of the keys to the caller's dk_NK, dv_NK [keys, padded_dim].
void ScalarTileBackward(const AttentionTileShape& shape, const AttentionRows& queries,
                        const AttentionRows& keys, float scale, const TileMask& mask,
                        const float* lse_R, const float* delta_R, float* dk_NK, float* dv_NK,
                        float* dq_RK) noexcept;

}  // namespace lwm::kernels
