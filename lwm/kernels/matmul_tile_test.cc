#include "lwm/kernels/matmul_tile.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/kernels/aligned_buffer.h"

namespace lwm::kernels {
namespace {

// `count` numbers of `type`, and the same as f64.
struct Matrix {
  Matrix(TileType type, size_t count, uint64_t key) : bytes(MakeAlignedBuffer<char>(4 * count)) {
    Random random(key);
    for (size_t i = 0; i < count; ++i) {
      const float x = static_cast<float>(2 * random.Uniform() - 1);
      const uint32_t bits = std::bit_cast<uint32_t>(x) & 0xffff0000u;  // exact in both types
      values.push_back(std::bit_cast<float>(bits));
      if (type == TileType::kF32)
        reinterpret_cast<uint32_t*>(bytes.get())[i] = bits;
      else
        reinterpret_cast<uint16_t*>(bytes.get())[i] = static_cast<uint16_t>(bits >> 16);
    }
  }
  AlignedBuffer<char> bytes;
  std::vector<double> values;
};

void ExpectProduct(const TileMatmulShape& shape, bool transposed) {
  const auto m = static_cast<size_t>(shape.m), n = static_cast<size_t>(shape.n),
             k = static_cast<size_t>(shape.k);
  const Matrix a(shape.type, m * k, 1), b(shape.type, k * n, 2);
  TileMatmul& tile = ThreadTileMatmul(shape);
  auto packed = MakeAlignedBuffer<char>(tile.packed_bytes());
  auto c = MakeAlignedBuffer<float>(m * n);
  for (size_t i = 0; i < m * n; ++i) c[i] = 2;
  tile.Pack(b.bytes.get(), transposed, packed.get());
  tile.Run(a.bytes.get(), packed.get(), c.get());
  for (size_t i = 0; i < m; ++i) {
    for (size_t j = 0; j < n; ++j) {
      double want = shape.accumulate ? 2 : 0;
      for (size_t x = 0; x < k; ++x) {
        want += a.values[i * k + x] * b.values[transposed ? j * k + x : x * n + j];
      }
      ASSERT_NEAR(c[i * n + j], want, 1e-6 * static_cast<double>(k)) << i << " " << j;
    }
  }
}

TEST(MatmulTileTest, MatchesTheDefinitionForBothTypesAndLayouts) {
  for (const TileType type : {TileType::kF32, TileType::kBF16}) {
    for (const bool accumulate : {false, true}) {
      for (const bool transposed : {false, true}) {
        ExpectProduct({type, 64, 128, 32, accumulate}, transposed);
        ExpectProduct({type, 128, 96, 64, accumulate}, transposed);
        ExpectProduct({type, 64, 64, 256, accumulate}, transposed);
      }
    }
  }
}

TEST(MatmulTileTest, ShapesThatDifferInAccumulateShareThePackedMatrix) {
  for (const TileType type : {TileType::kF32, TileType::kBF16}) {
    const Matrix a(type, 64 * 64, 1), b(type, 64 * 64, 2);
    TileMatmul &set = ThreadTileMatmul({type, 64, 64, 64, false}),
               &add = ThreadTileMatmul({type, 64, 64, 64, true});
    ASSERT_EQ(set.packed_bytes(), add.packed_bytes());
    auto packed = MakeAlignedBuffer<char>(set.packed_bytes());
    auto once = MakeAlignedBuffer<float>(64 * 64), twice = MakeAlignedBuffer<float>(64 * 64);
    set.Pack(b.bytes.get(), false, packed.get());
    set.Run(a.bytes.get(), packed.get(), once.get());
    set.Run(a.bytes.get(), packed.get(), twice.get());
    add.Run(a.bytes.get(), packed.get(), twice.get());
    for (int i = 0; i < 64 * 64; ++i) ASSERT_NEAR(twice[i], 2 * once[i], 1e-5);
  }
}

}  // namespace
}  // namespace lwm::kernels
