#include "lwm/ops/attention/query_tiles.h"

#include <algorithm>

#include "lwm/kernels/matmul_tile.h"
#include "lwm/kernels/tile_layout.h"

namespace lwm::ops {

// Head blocks of one tile of queries follow each other: all of them see the same keys.
QueryPlace QueryTiles::NextSeeing(int64_t b, int64_t key_tile, QueryPlace place) const {
  if (++place.head_block == tiling_.head_blocks) place = {place.tile + 1, 0};
  while (place.tile < last_ && Seen(b, place.tile, key_tile) == Visibility::kNone) {
    place = {place.tile + 1, 0};
  }
  return place;
}

// Turns are found from the extremes of the tiles, the same way in which the pass skips tiles, so a
// turn is never given to a tile of keys that will not take it.
void QueryTiles::OrderTurns() {
  std::atomic<int64_t> next{0};
  OnEachThread([&] {
    QueryTile tile(tiling_, queries_.queries);
    for (int64_t i = next++; i < static_cast<int64_t>(Count()); i = next++) OrderTurn(tile, i);
  });
}

void QueryTiles::Pack(kernels::AttentionBackwardTile& kernel, const QueryTile& tile, size_t at) {
  const auto q_rows = tile.Rows(queries_.queries.q_BTHK);
  const auto dout_rows = tile.Rows(queries_.dout_BTHK);
  finite_[at] =
      kernel.PackQueries({q_rows.data(), dout_rows.data()}, packed_.data() + at * query_bytes_);
}

// Rounds one row of a complete sum into the result.
void QueryTiles::Round(const float* dq_K, int64_t b, int64_t slot, int64_t head) const {
  const auto element = static_cast<int64_t>(kernels::BytesPerElement(tiling_.shape.type));
  kernels::ScaleRowTo(tiling_.shape.type, dq_K, tiling_.shape.head_dim, 1.0f,
                      sums_.rounded_dq_BTHK + At(b, slot, head) * element);
}

// Tiles of keys that see nothing of these queries have no turn: waiting for them would hold up
// others.
int64_t QueryTiles::NextTurn(int64_t b, int64_t query_tile, int64_t from) const {
  while (from < tiling_.key_tile_count() && Seen(b, query_tile, from) == Visibility::kNone) {
    ++from;
  }
  return from;
}

void QueryTiles::OrderTurn(QueryTile& tile, int64_t i) {
  const int64_t tiles = last_ - first_, blocks = tiling_.head_blocks;
  const int64_t b = i / (tiles * blocks * tiling_.kv_heads);
  const int64_t g = i / (tiles * blocks) % tiling_.kv_heads;
  const QueryPlace place{first_ + i % tiles, i / tiles % blocks};
  const size_t at = Index(b, g, place);
  first_turn_[at] = NextTurn(b, place.tile, 0);
  turn_[at] = first_turn_[at];
  if (first_turn_[at] < tiling_.key_tile_count()) return;
  // No key: no turn will set or round these rows.
  tile.Select(b, g, place.head_block, place.tile);
  tile.ForEach([&](int, int64_t slot, int64_t head) {
    float* dq_K = Gradient(b, slot, head);
    if (sets()) std::fill_n(dq_K, tiling_.shape.head_dim, 0.0f);
    if (rounds()) Round(dq_K, b, slot, head);
  });
}

}  // namespace lwm::ops
