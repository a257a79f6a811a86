#include "lwm/kernels/attention_tile.h"

#include <map>
#include <memory>

#include "lwm/kernels/attention_amx.h"

namespace lwm::kernels {
namespace {

template <class Tile>
using MakeTile = std::unique_ptr<Tile> (*)(const AttentionTileShape& shape);

template <class Tile, MakeTile<Tile> make_onednn, MakeTile<Tile> make_amx>
Tile& ThreadTile(const AttentionTileShape& shape) {
  thread_local std::map<AttentionTileShape, std::unique_ptr<Tile>> tiles;
  constexpr size_t kKept = 8;  // a process uses few shapes; scratch of more would only hold memory
  if (tiles.size() >= kKept && !tiles.contains(shape)) tiles.clear();
  std::unique_ptr<Tile>& tile = tiles[shape];
  if (!tile) tile = shape.amx ? make_amx(shape) : make_onednn(shape);
  return *tile;
}

}  // namespace

bool UsesAmx(TileType type) { return type == TileType::kBF16 && AmxAvailable(); }

AttentionForwardTile& ThreadForwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionForwardTile, MakeOneDnnForwardTile, MakeAmxForwardTile>(shape);
}
AttentionBackwardTile& ThreadBackwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionBackwardTile, MakeOneDnnBackwardTile, MakeAmxBackwardTile>(shape);
}

}  // namespace lwm::kernels
