#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>

#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/matmul_tile.h"
#include "lwm/kernels/softmax_tile.h"

namespace lwm::kernels {

// The attention of `rows` queries (R) and `keys` keys (N) of one kv head. A row is one query of one
// query head, so the query heads of a group can share a tile. Inside a tile, head_dim is padded
// with zeros to padded_dim() (K), and missing rows and keys are zero.
struct AttentionTileShape {
  TileType type = TileType::kF32;
  int rows = 0, keys = 0;  // multiples of 64
  int head_dim = 0;
  auto operator<=>(const AttentionTileShape&) const = default;
  int padded_dim() const { return (head_dim + 31) / 32 * 32; }
  // One [rows or keys, padded_dim] matrix, also when packed as the right side of a product, where
  // oneDNN pads columns to 64.
  size_t query_bytes() const { return static_cast<size_t>(rows) * row_bytes(); }
  size_t key_bytes() const { return static_cast<size_t>(keys) * row_bytes(); }

 private:
  size_t row_bytes() const {
    return static_cast<size_t>((head_dim + 63) / 64 * 64) * BytesPerElement(type);
  }
};

// Rows of tensors, head_dim numbers each, as many as the tile has rows or keys; nullptr is missing.
struct AttentionRows {
  const void* const* first;   // q or k
  const void* const* second;  // dout or v; forward's queries have none
};

// Forward of tile pairs. Keys and queries are packed once each and then meet many times. Objects
// hold scratch of a few tiles, belong to one thread and throw what oneDNN throws when made.
class AttentionForwardTile {
 public:
  explicit AttentionForwardTile(const AttentionTileShape& shape);

  size_t packed_query_bytes() const { return shape_.query_bytes(); }
  size_t packed_key_bytes() const { return 2 * shape_.key_bytes(); }

  // Both give whether all numbers are finite, and write 64-byte aligned packed_*_bytes().
  bool PackQueries(const AttentionRows& queries, void* packed_queries);
  bool PackKeys(const AttentionRows& keys, void* packed_keys);

  // Adds the keys to the running softmax of the queries (see OnlineSoftmaxTile).
  //   max_R, sum_R  in/out  f32 [rows]
  //   acc_RK        in/out  f32 [rows, padded_dim], 64-byte aligned
  // A masked non-finite v reaches everyone: such pairs belong to CarefulForward.
  void Run(const void* packed_queries, const void* packed_keys, float scale, const TileMask* mask,
           float* max_R, float* sum_R, float* acc_RK);

 private:
  AttentionTileShape shape_;
  TileMatmul& scores_;
  TileMatmul& values_;
  AlignedBuffer<float> s_RN_;
  AlignedBuffer<char> p_RN_, rows_;
};

// Backward of tile pairs, as AttentionForwardTile; queries come with dout, keys with v.
class AttentionBackwardTile {
 public:
  explicit AttentionBackwardTile(const AttentionTileShape& shape);

  size_t packed_query_bytes() const { return 4 * shape_.query_bytes(); }
  size_t packed_key_bytes() const { return 3 * shape_.key_bytes(); }

  bool PackQueries(const AttentionRows& queries, void* packed_queries);
  bool PackKeys(const AttentionRows& keys, void* packed_keys);

  // Adds the gradients of the keys, and keeps what QueryGradient needs.
  //   lse_R, delta_R  in      f32 [rows]; a missing row has lse = +inf
  //   dk_NK, dv_NK    in/out  f32 [keys, padded_dim], 64-byte aligned
  // A masked non-finite row reaches everyone: such pairs belong to CarefulBackward.
  void Run(const void* packed_queries, const void* packed_keys, float scale, const TileMask* mask,
           const float* lse_R, const float* delta_R, float* dk_NK, float* dv_NK);

  // The last Run's gradient of the queries, f32 [rows, padded_dim]; valid until the next call.
  const float* QueryGradient(const void* packed_keys);

 private:
  AttentionTileShape shape_;
  TileMatmul& scores_;
  TileMatmul& query_gradient_;
  TileMatmul& key_gradient_;
  AlignedBuffer<float> s_RN_, dp_RN_, dq_RK_;
  AlignedBuffer<char> p_RN_, ds_RN_, transposed_NR_, rows_;
};

// The calling thread's objects, made at first use. The last few shapes are kept.
AttentionForwardTile& ThreadForwardTile(const AttentionTileShape& shape);
AttentionBackwardTile& ThreadBackwardTile(const AttentionTileShape& shape);

}  // namespace lwm::kernels
