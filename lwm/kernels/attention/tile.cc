#include "lwm/kernels/attention/tile.h"

#include <map>
#include <memory>

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {
namespace {

std::unique_ptr<AttentionForwardTile> Make(const AttentionTileShape& shape,
                                           const AttentionForwardTile*) {
  return shape.own_blocks() ? MakeBf16ForwardTile(shape) : MakeOneDnnForwardTile(shape);
}
std::unique_ptr<AttentionBackwardTile> Make(const AttentionTileShape& shape,
                                            const AttentionBackwardTile*) {
  switch (shape.kernel) {
    case TileKernel::kOneDnn:
      break;
    case TileKernel::kAvx512Bf16:
      return MakeAvx512BackwardTile(shape);
    case TileKernel::kAmx:
      return MakeAmxBackwardTile(shape);
  }
  return MakeOneDnnBackwardTile(shape);
}

// Per thread: a tile's scratch cannot be shared, and oneDNN's primitives are made inside the
// parallel region that runs them.
template <class Tile>
Tile& ThreadTile(const AttentionTileShape& shape) {
  thread_local std::map<AttentionTileShape, std::unique_ptr<Tile>> tiles;
  constexpr size_t kKept = 8;  // a process uses few shapes; scratch of more would only hold memory
  if (tiles.size() >= kKept && !tiles.contains(shape)) tiles.clear();
  std::unique_ptr<Tile>& tile = tiles[shape];
  if (!tile) tile = Make(shape, tile.get());
  return *tile;
}

}  // namespace

// AMX-BF16 and AVX512-BF16 multiply no f32, so f32 goes to oneDNN on every processor.
TileKernel BestTileKernel(TileType type) {
  if (type != TileType::kBF16) return TileKernel::kOneDnn;
  if (AmxAvailable()) return TileKernel::kAmx;
  return Avx512Bf16Available() ? TileKernel::kAvx512Bf16 : TileKernel::kOneDnn;
}

AttentionForwardTile& ThreadForwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionForwardTile>(shape);
}
AttentionBackwardTile& ThreadBackwardTile(const AttentionTileShape& shape) {
  return ThreadTile<AttentionBackwardTile>(shape);
}

}  // namespace lwm::kernels
