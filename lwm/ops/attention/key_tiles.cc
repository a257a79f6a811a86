#include "lwm/ops/attention/key_tiles.h"

#include <ATen/Parallel.h>
#include <ATen/ops/empty.h>

#include <algorithm>
#include <thread>

#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

using kernels::AttentionForwardTile;

// Scratch, so that every call of a training step reuses the same pages.
PackedKeys RoomForTiles(const AttentionTiling& tiling, int64_t tiles) {
  const kernels::AttentionTileShape& shape = tiling.shape;
  const int64_t keys = shape.keys, row_bytes = static_cast<int64_t>(shape.key_bytes()) / keys;
  const at::ScalarType type = shape.type == kernels::TileType::kF32 ? at::kFloat : at::kBFloat16;
  const int64_t row = row_bytes / static_cast<int64_t>(kernels::BytesPerElement(shape.type));
  return {ScratchTensor({tiles, tiling.batch, tiling.kv_heads, 2, keys, row}, type),
          at::empty({tiles, tiling.batch, tiling.kv_heads}, at::TensorOptions(at::kByte))};
}

PackedKeys Narrow(const PackedKeys& keys, int64_t first, int64_t count) {
  return {keys.tiles_NBG2UK.narrow(0, first, count), keys.finite_NBG.narrow(0, first, count)};
}

}  // namespace

// Received tiles are used where they lie, in the ring's buffer; nothing is copied.
KeyTiles::KeyTiles(const AttentionTiling& tiling, const KeyBlock& keys, int64_t first, int64_t last)
    : tiling_(tiling),
      keys_(keys),
      first_(first),
      last_(last),
      tile_bytes_(AttentionForwardTile::PackedKeyBytes(tiling.shape)),
      packed_(keys.packed.defined() ? Narrow(keys.packed, first, last - first)
                                    : RoomForTiles(tiling, last - first)),
      tiles_(static_cast<char*>(packed_.tiles_NBG2UK.data_ptr())),
      finite_(packed_.finite_NBG.data_ptr<uint8_t>()),
      packing_(keys.packed.defined() ? 0 : static_cast<size_t>(packed_.finite_NBG.numel())) {}

// A state per tile, no lock: threads mostly meet tiles that are done, and then read one atomic. The
// others wait for the packer, since they have nothing to do without the tile.
void KeyTiles::Pack(AttentionForwardTile& kernel, int64_t b, int64_t g, int64_t tile) {
  if (keys_.packed.defined()) return;
  const size_t at = TileIndex(b, g, tile);
  std::atomic<Packing>& packing = packing_[at];
  for (Packing seen = packing; seen != Packing::kDone; seen = packing) {
    if (seen == Packing::kNobody && packing.compare_exchange_strong(seen, Packing::kSomebody)) {
      try {
        const Rows rows = RowsOf(b, g, tile);
        finite_[at] = kernel.PackKeys({rows.k.data(), rows.v.data()}, tiles_ + at * tile_bytes_);
      } catch (...) {
        packing = Packing::kNobody;  // lets a waiting thread try instead of waiting forever
        throw;
      }
      packing = Packing::kDone;
      return;
    }
    std::this_thread::yield();
  }
}

KeyTiles::Rows KeyTiles::RowsOf(int64_t b, int64_t g, int64_t tile) const {
  if (!keys_.packed.defined()) {
    return {
        KeyRows(tiling_, keys_.k_BUGK, b, g, tile), KeyRows(tiling_, keys_.v_BUGK, b, g, tile), {}};
  }
  // Received packed: rows do not exist here. Only the scalar tile asks for them, which is rare.
  const auto keys = static_cast<size_t>(tiling_.shape.keys);
  const auto dim = static_cast<size_t>(tiling_.shape.padded_dim());
  Rows rows;
  rows.unpacked.resize(2 * keys * dim);
  uint16_t* const k_NK = rows.unpacked.data();
  uint16_t* const v_NK = k_NK + keys * dim;
  kernels::UnpackKeys(tiling_.shape, Packed(b, g, tile), k_NK, v_NK);
  for (size_t n = 0; n < keys; ++n) {
    rows.k.push_back(k_NK + n * dim);
    rows.v.push_back(v_NK + n * dim);
  }
  return rows;
}

int64_t TilesPerPass(const AttentionTiling& tiling) {
  const int64_t tile_bytes =
      tiling.batch * tiling.kv_heads * 2 * static_cast<int64_t>(tiling.shape.key_bytes());
  return std::max<int64_t>(1, kPackedBytes / tile_bytes);
}

PackedKeys PackKeys(const QueryBlock& queries, const KeyBlock& keys) {
  CheckAttentionBlock(queries, keys, 0);
  if (queries.q_BTHK.numel() == 0 || keys.slots() == 0) return {};
  const AttentionTiling tiling(queries, keys);
  const int64_t tiles = tiling.key_tile_count();
  // oneDNN's packed layout is opaque. Keys of more than one pass are packed pass by pass instead,
  // so that no more than 64 MiB are held.
  if (!tiling.shape.own_blocks() || tiles > TilesPerPass(tiling)) return {};
  KeyTiles packed(tiling, keys, 0, tiles);
  const int64_t row_heads = tiling.batch * tiling.kv_heads;
  // Tiles are the outer dimension: a range of tiles, the part of a ring message, is contiguous.
  at::parallel_for(0, tiles * row_heads, 1, [&](int64_t first, int64_t last) {
    AttentionForwardTile& kernel = kernels::ThreadForwardTile(tiling.shape);
    for (int64_t i = first; i < last; ++i) {
      packed.Pack(kernel, i % row_heads / tiling.kv_heads, i % tiling.kv_heads, i / row_heads);
    }
  });
  return packed.packed();
}

}  // namespace lwm::ops
