#pragma once

#include <compare>
#include <cstddef>
#include <cstdint>
#include <memory>

namespace lwm::kernels {

enum class TileType : uint8_t { kF32, kBF16 };  // of a matrix product's operands; its result is f32
constexpr size_t BytesPerElement(TileType type) { return type == TileType::kF32 ? 4 : 2; }

// Whether oneDNN multiplies bf16 with bf16 instructions here. Elsewhere bf16 is widened and
// multiplied in f32, right sides packed in f32 too: oneDNN 2.6 cannot accumulate such a product.
bool HasBf16Products();

// Bytes per element of a packed right side.
inline size_t PackedBytesPerElement(TileType type) {
  return type == TileType::kF32 || !HasBf16Products() ? 4 : 2;
}

struct TileMatmulShape {
  TileType type = TileType::kF32;
  int m = 0, n = 0, k = 0;
  bool accumulate = false;
  auto operator<=>(const TileMatmulShape&) const = default;
};

// C_MN = A_MK * B_KN, or C_MN += A_MK * B_KN, for one fixed small shape, on one thread (oneDNN
// picks the instructions: AVX2, AVX-512, BF16, AMX). B is packed once into the layout those
// instructions want and then used with many A.
//
//   a_MK      in      shape.type [m,k] row-major, no padding between rows
//   packed_B  in      written by Pack, packed_bytes() bytes; shapes that differ only in
//                     `accumulate` share it
//   c_MN      in/out  f32 [m,n] row-major, no padding
//
// Every buffer 64-byte aligned. Threads: one object belongs to one thread. Throws dnnl::error.
class TileMatmul {
 public:
  explicit TileMatmul(const TileMatmulShape& shape);
  ~TileMatmul();

  size_t packed_bytes() const;
  // b_KN [k,n] row-major, or with `transposed` b_NK [n,k] row-major.
  void Pack(const void* b, bool transposed, void* packed_B);
  void Run(const void* a_MK, const void* packed_B, float* c_MN);

 private:
  struct Impl;
  std::unique_ptr<Impl> impl_;
};

// The calling thread's object for this shape, made at its first use. Call it inside the parallel
// region that uses it.
TileMatmul& ThreadTileMatmul(const TileMatmulShape& shape);

}  // namespace lwm::kernels
