#include "lwm/ops/attention/memory.h"

#include <algorithm>

#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {

double PackedAttentionBytes(const AttentionSize& size) {
  // The bytes of one row of a tile; the copies of a pass are limited to kPackedBytes.
  kernels::AttentionTileShape row;
  row.type = size.dtype == at::kFloat ? kernels::TileType::kF32 : kernels::TileType::kBF16;
  row.rows = row.keys = 1;
  row.head_dim = static_cast<int>(size.head_dim);
  row.kernel = kernels::BestTileKernel(row.type);
  const auto of = [&](size_t row_bytes, double heads) {
    return std::min(static_cast<double>(kPackedBytes),
                    static_cast<double>(row_bytes) * heads * size.tokens);
  };
  // The sum: the pool may keep the memory of the one while the other runs.
  return of(kernels::AttentionBackwardTile::PackedQueryBytes(row), size.heads) +
         of(kernels::AttentionForwardTile::PackedKeyBytes(row), size.kv_heads);
}

}  // namespace lwm::ops
