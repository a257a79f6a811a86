#pragma once

#include "lwm/kernels/attention_tile.h"

namespace lwm::kernels {

// The definition of a tile pair, number by number: a key that a query does not see is never
// touched, so NaN and Inf stay with those who see them. Slow; for partly masked pairs with such
// numbers.

// As AttentionForwardTile::Run; q and k, v are unpacked rows, and missing
// ones must be hidden by the mask.
void CarefulForward(const AttentionTileShape& shape, const AttentionRows& queries,
                    const AttentionRows& keys, float scale, const TileMask& mask, float* max_R,
                    float* sum_R, float* acc_RK) noexcept;

// As AttentionBackwardTile::Run, but the gradients of the queries are set, in rows of padded_dim()
// numbers, and those of the keys lie outside: dk_NK, dv_NK [keys, padded_dim] are added to.
void CarefulBackward(const AttentionTileShape& shape, const AttentionRows& queries,
                     const AttentionRows& keys, float scale, const TileMask& mask,
                     const float* lse_R, const float* delta_R, float* dk_NK, float* dv_NK,
                     float* dq_RK) noexcept;

}  // namespace lwm::kernels
