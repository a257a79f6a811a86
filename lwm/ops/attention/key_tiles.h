#pragma once

#include <atomic>
#include <cstdint>
#include <vector>

#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {

// Tiles [first, last) of the keys of every batch row and kv head. Packed here, each tile once by
// the thread that needs it first, or received packed.
class KeyTiles {
 public:
  KeyTiles(const AttentionTiling& tiling, const KeyBlock& keys, int64_t first, int64_t last);

  int64_t first() const { return first_; }
  int64_t last() const { return last_; }
  // All tiles; complete once every tile is packed.
  const PackedKeys& packed() const { return packed_; }

  Visibility Seen(int64_t b, int64_t query_tile, int64_t tile) const {
    const auto row = static_cast<size_t>(b);
    return Compare(tiling_.query_tiles[row][static_cast<size_t>(query_tile)],
                   tiling_.key_tiles[row][static_cast<size_t>(tile)]);
  }
  // The first tile from `from` on that the queries see, last() if there is none.
  int64_t NextSeen(int64_t b, int64_t query_tile, int64_t from) const {
    while (from < last_ && Seen(b, query_tile, from) == Visibility::kNone) ++from;
    return from;
  }
  const int32_t* Index(int64_t b, int64_t tile) const { return tiling_.KeyIndex(b, tile); }

  // Packs the tile unless another thread has, or waits for the one that does. The first to need a
  // tile packs it, and has it in its core's cache. Any thread.
  void Pack(kernels::AttentionForwardTile& kernel, int64_t b, int64_t g, int64_t tile);
  bool IsPacked(int64_t b, int64_t g, int64_t tile) const {
    return keys_.packed.defined() || packing_[TileIndex(b, g, tile)] == Packing::kDone;
  }
  // These two want a packed tile.
  const char* Packed(int64_t b, int64_t g, int64_t tile) const {
    return tiles_ + TileIndex(b, g, tile) * tile_bytes_;
  }
  bool Finite(int64_t b, int64_t g, int64_t tile) const {
    return finite_[TileIndex(b, g, tile)] != 0;
  }

  // The keys of a tile in rows of head_dim numbers; nullptr or zeros beyond the last.
  struct Rows {
    std::vector<const void*> k, v;
    std::vector<uint16_t> unpacked;  // their storage, if the keys were received packed
  };
  Rows RowsOf(int64_t b, int64_t g, int64_t tile) const;

 private:
  enum class Packing : char { kNobody, kSomebody, kDone };

  size_t TileIndex(int64_t b, int64_t g, int64_t tile) const {
    return static_cast<size_t>(((tile - first_) * tiling_.batch + b) * tiling_.kv_heads + g);
  }

  const AttentionTiling& tiling_;
  const KeyBlock& keys_;
  const int64_t first_, last_;
  const size_t tile_bytes_;
  const PackedKeys packed_;  // those received, or room for them
  char* const tiles_;
  uint8_t* const finite_;
  std::vector<std::atomic<Packing>> packing_;
};

// Packs all keys. Returns undefined tensors without such kernels, without queries or keys, and
// where packing would take several passes of 64 MiB.
PackedKeys PackKeys(const QueryBlock& queries, const KeyBlock& keys);

// Number of tiles whose packed copies, of all rows and kv heads, fit in kPackedBytes; at least 1.
int64_t TilesPerPass(const AttentionTiling& tiling);

}  // namespace lwm::ops
