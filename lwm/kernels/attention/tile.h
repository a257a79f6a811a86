#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>

#include "lwm/kernels/attention/softmax_tile.h"
#include "lwm/kernels/matmul_tile.h"

namespace lwm::kernels {

// Implementations of tile pairs: oneDNN for the products with Highway for the rest, or bf16 kernels
// of our own in AVX512-BF16 or AMX.
enum class TileKernel : uint8_t { kOneDnn, kAvx512Bf16, kAmx };
// The fastest of them on this machine for tiles of this type.
TileKernel BestTileKernel(TileType type);

// The attention of `rows` queries (R) and `keys` keys (N) of one kv head. A row is one query of one
// query head, so the query heads of a group can share a tile. Inside a tile, head_dim is padded
// with zeros to padded_dim() (K), and missing rows and keys are zero.
struct AttentionTileShape {
  TileType type = TileType::kF32;
  int rows = 0, keys = 0;  // multiples of 64
  int head_dim = 0;
  TileKernel kernel = TileKernel::kOneDnn;
  auto operator<=>(const AttentionTileShape&) const = default;

  // Whether keys are packed in our own blocks, which both of our bf16 kernels read.
  bool own_blocks() const { return kernel != TileKernel::kOneDnn; }
  int padded_dim() const { return (head_dim + 31) / 32 * 32; }
  // Bytes of one [rows or keys, padded_dim] matrix, plain or packed as the right side of a product.
  // oneDNN, unlike our own kernels, pads columns of the packed form to 64.
  size_t query_bytes() const { return static_cast<size_t>(rows) * row_bytes(); }
  size_t key_bytes() const { return static_cast<size_t>(keys) * row_bytes(); }

 private:
  size_t row_bytes() const {
    return own_blocks()
               ? static_cast<size_t>(padded_dim()) * BytesPerElement(type)
               : static_cast<size_t>((head_dim + 63) / 64 * 64) * PackedBytesPerElement(type);
  }
};

// Pointers to rows of head_dim numbers, one per row or key of the tile; nullptr: missing.
struct AttentionRows {
  const void* const* first;   // q or k
  const void* const* second;  // dout or v; forward's queries have none
};

// Forward of tile pairs. Keys and queries are packed once and then used in many pairs. Objects hold
// scratch of a few tiles and belong to one thread. Making one may throw dnnl::error.
class AttentionForwardTile {
 public:
  virtual ~AttentionForwardTile() = default;

  static size_t PackedQueryBytes(const AttentionTileShape& s) { return s.query_bytes(); }
  static size_t PackedKeyBytes(const AttentionTileShape& s) { return 2 * s.key_bytes(); }

  // Both write Packed*Bytes(), 64-byte aligned, and return whether all numbers are finite.
  virtual bool PackQueries(const AttentionRows& queries, void* packed_queries) = 0;
  virtual bool PackKeys(const AttentionRows& keys, void* packed_keys) = 0;

  // Adds the keys to the running softmax of the queries (see OnlineSoftmaxTile).
  //   next_keys  in      packed keys of the coming call, nullptr when not known
  //   state      in/out  dim is padded_dim; acc is 64-byte aligned
  // 0 x NaN would poison the tile: partly masked pairs with a non-finite v go to ScalarTileForward.
  virtual void Run(const void* packed_queries, const void* packed_keys, const void* next_keys,
                   float scale, const TileMask* mask, const SoftmaxState& state) = 0;
};

// Reverses PackKeys of a tile with own_blocks(): k_NK, v_NK in rows, bf16 [keys, padded_dim]. For
// ScalarTileForward where only packed keys were received. Slow.
void UnpackKeys(const AttentionTileShape& shape, const void* packed_keys, uint16_t* k_NK,
                uint16_t* v_NK) noexcept;

// Backward of tile pairs, as AttentionForwardTile; queries come with dout, keys with v. It works on
// one tile of keys at a time and keeps their gradients until KeyGradients.
class AttentionBackwardTile {
 public:
  virtual ~AttentionBackwardTile() = default;

  static size_t PackedQueryBytes(const AttentionTileShape& s) { return 4 * s.query_bytes(); }

  virtual bool PackQueries(const AttentionRows& queries, void* packed_queries) = 0;
  // Sets the keys of the coming calls; their gradients start at zero. Returns whether all are
  // finite.
  virtual bool StartKeys(const AttentionRows& keys) = 0;

  // Adds to the gradients of the keys and of the queries.
  //   lse_R, delta_R  in      f32 [rows]; a missing row has lse = +inf
  //   next_queries    in      packed queries of the coming call, nullptr when not known
  //   dq_rows         in/out  rows of head_dim numbers, f32, any alignment; nullptr is missing
  // 0 x NaN would poison the tile: partly masked pairs with a non-finite row go to
  // ScalarTileBackward.
  virtual void Run(const void* packed_queries, const void* next_queries, float scale,
                   const TileMask* mask, const float* lse_R, const float* delta_R,
                   float* const* dq_rows) = 0;

  // dk_NK, dv_NK [keys, padded_dim] = the gradients of the keys, which start at zero again.
  virtual void KeyGradients(float* dk_NK, float* dv_NK) = 0;
};

// The calling thread's objects, made at first use. A few shapes are kept.
AttentionForwardTile& ThreadForwardTile(const AttentionTileShape& shape);
AttentionBackwardTile& ThreadBackwardTile(const AttentionTileShape& shape);

// Implementations, in tile_onednn.cc and tile_bf16.cc, which has UnpackKeys too.
std::unique_ptr<AttentionForwardTile> MakeOneDnnForwardTile(const AttentionTileShape& shape);
std::unique_ptr<AttentionBackwardTile> MakeOneDnnBackwardTile(const AttentionTileShape& shape);
std::unique_ptr<AttentionForwardTile> MakeBf16ForwardTile(const AttentionTileShape& shape);
std::unique_ptr<AttentionBackwardTile> MakeAvx512BackwardTile(const AttentionTileShape& shape);
std::unique_ptr<AttentionBackwardTile> MakeAmxBackwardTile(const AttentionTileShape& shape);

}  // namespace lwm::kernels
