#pragma once

#include <atomic>
#include <cstddef>
#include <cstdint>
#include <vector>

#include "lwm/kernels/attention/tile.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/tiling.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {

// Destination of the queries' gradient, see AttentionBlockBackward.
struct QuerySums {
  float* dq_BTHK;         // in/out
  char* rounded_dq_BTHK;  // out, dtype of q; may be nullptr
  bool set;               // dq holds nothing yet
};

// A tile of queries and a block of query heads of one kv head.
struct QueryPlace {
  int64_t tile, head_block;
};

// Tiles [first, last) of the queries of every batch row and head in the backward pass, packed at
// first use, and their gradients. Tiles of keys add to a tile of queries in turn, by rising number,
// so that the bits of the sum do not depend on the threads. A thread calls the functions that take
// `at`, the Index of a place, only while IsTurn holds for its tile of keys.
// Memory: the packed tiles. Refers to its arguments.
class QueryTiles {
 public:
  QueryTiles(const AttentionTiling& tiling, const QueryGradientBlock& queries,
             const QuerySums& sums, int64_t first, int64_t last)
      : tiling_(tiling),
        queries_(queries),
        sums_(sums),
        first_(first),
        last_(last),
        query_bytes_(kernels::AttentionBackwardTile::PackedQueryBytes(tiling.shape)),
        packed_(Count() * query_bytes_),
        finite_(Count()),
        first_turn_(Count()),
        turn_(Count()) {}

  const AttentionTiling& tiling() const { return tiling_; }
  const QueryGradientBlock& queries() const { return queries_; }
  int64_t last() const { return last_; }

  size_t Index(int64_t b, int64_t g, const QueryPlace& place) const {
    const int64_t block = (b * tiling_.kv_heads + g) * tiling_.head_blocks + place.head_block;
    return static_cast<size_t>(block * (last_ - first_) + place.tile - first_);
  }
  const char* Packed(size_t at) const { return packed_.data() + at * query_bytes_; }
  bool Finite(size_t at) const { return finite_[at]; }

  Visibility Seen(int64_t b, int64_t query_tile, int64_t key_tile) const {
    const auto row = static_cast<size_t>(b);
    return Compare(tiling_.query_tiles[row][static_cast<size_t>(query_tile)],
                   tiling_.key_tiles[row][static_cast<size_t>(key_tile)]);
  }
  // The first place whose queries see the keys; its tile is last() if there is none.
  QueryPlace FirstSeeing(int64_t b, int64_t key_tile) const {
    return NextSeeing(b, key_tile, {first_, -1});
  }
  // The first such place after `place`.
  QueryPlace NextSeeing(int64_t b, int64_t key_tile, QueryPlace place) const;

  // Call before the functions below; uses all threads. Also sets the gradient of queries that see
  // no key, which never have a turn.
  void OrderTurns();
  bool IsTurn(size_t at, int64_t key_tile) const { return turn_[at] == key_tile; }
  bool IsFirstTurn(size_t at, int64_t key_tile) const { return first_turn_[at] == key_tile; }
  bool IsLastTurn(int64_t b, int64_t query_tile, int64_t key_tile) const {
    return NextTurn(b, query_tile, key_tile + 1) == tiling_.key_tile_count();
  }
  void EndTurn(int64_t b, const QueryPlace& place, size_t at, int64_t key_tile) {
    turn_[at] = NextTurn(b, place.tile, key_tile + 1);
  }

  // Packs a tile of queries. Call at its first turn: the thread that packs it uses it next.
  void Pack(kernels::AttentionBackwardTile& kernel, const QueryTile& tile, size_t at);

  bool sets() const { return sums_.set; }
  bool rounds() const { return sums_.rounded_dq_BTHK != nullptr; }
  float* Gradient(int64_t b, int64_t slot, int64_t head) const {
    return sums_.dq_BTHK + At(b, slot, head);
  }
  void Round(const float* dq_K, int64_t b, int64_t slot, int64_t head) const;

 private:
  size_t Count() const {
    return static_cast<size_t>(tiling_.batch * tiling_.kv_heads * tiling_.head_blocks *
                               (last_ - first_));
  }
  // The first tile of keys from `from` on that the queries see: its turn to add is next.
  int64_t NextTurn(int64_t b, int64_t query_tile, int64_t from) const;
  // Sets the first turn of the i-th tile, or finishes it if it sees no key.
  void OrderTurn(QueryTile& tile, int64_t i);
  // Offset of the query's first number in [B,T,H,K].
  int64_t At(int64_t b, int64_t slot, int64_t head) const {
    return ((b * tiling_.tokens + slot) * tiling_.heads + head) * tiling_.shape.head_dim;
  }

  const AttentionTiling& tiling_;
  const QueryGradientBlock& queries_;
  const QuerySums sums_;
  const int64_t first_, last_;
  const size_t query_bytes_;
  ScratchMemory packed_;
  std::vector<char> finite_;
  // Of each tile of queries: the first tile of keys that it sees, and the one whose turn it is.
  std::vector<int64_t> first_turn_;
  std::vector<std::atomic<int64_t>> turn_;
};

}  // namespace lwm::ops
