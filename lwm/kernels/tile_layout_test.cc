#include "lwm/kernels/tile_layout.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

uint16_t ToBf16(float x) {  // exact for the values used here
  return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
}
float FromBf16(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

template <class Number>
void ExpectGather(TileType type, Number one, Number infinity) {
  constexpr int kRows = 4, kPadded = 96;
  for (int dim = 1; dim <= 67; ++dim) {
    std::vector<Number> row(static_cast<size_t>(dim), one);
    const void* rows[kRows] = {row.data(), nullptr, row.data(), nullptr};
    std::vector<Number> out(kRows * kPadded, one);
    EXPECT_TRUE(GatherRows(type, rows, kRows, dim, kPadded, out.data()));
    for (int i = 0; i < kRows * kPadded; ++i) {
      const bool copied = i / kPadded % 2 == 0 && i % kPadded < dim;
      ASSERT_EQ(out[static_cast<size_t>(i)], copied ? one : Number{}) << dim << " " << i;
    }
    row.back() = infinity;
    EXPECT_FALSE(GatherRows(type, rows, kRows, dim, kPadded, out.data())) << dim;
  }
}

TEST(TileLayoutTest, GatherPadsWithZerosAndFindsTheNumberThatIsNotFinite) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    ExpectGather<float>(TileType::kF32, 1.5f, -std::numeric_limits<float>::infinity());
    ExpectGather<uint16_t>(TileType::kBF16, ToBf16(1.5f), ToBf16(std::nanf("")));
  });
}

template <class Number>
void ExpectTranspose(TileType type, int rows, int cols) {
  const auto count = static_cast<size_t>(rows * cols);
  auto x = MakeAlignedBuffer<Number>(count), y = MakeAlignedBuffer<Number>(count);
  for (size_t i = 0; i < count; ++i) x[i] = static_cast<Number>(i);
  TransposeTile(type, rows, cols, x.get(), y.get());
  for (int r = 0; r < rows; ++r) {
    for (int c = 0; c < cols; ++c) ASSERT_EQ(y[c * rows + r], x[r * cols + c]) << r << " " << c;
  }
}

TEST(TileLayoutTest, TransposeMovesEveryNumberOnEveryTarget) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    for (const auto& [rows, cols] : {std::pair{16, 16}, std::pair{64, 128}, std::pair{48, 32}}) {
      ExpectTranspose<float>(TileType::kF32, rows, cols);
      ExpectTranspose<uint16_t>(TileType::kBF16, rows, cols);
    }
  });
}

TEST(TileLayoutTest, RowArithmeticMatchesTheDefinitionForEveryTail) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    Random random(3);
    for (int dim = 1; dim <= 67; ++dim) {
      const auto size = static_cast<size_t>(dim);
      std::vector<float> x(size), y(size), sum(size), out(size);
      std::vector<uint16_t> x16(size), y16(size), out16(size);
      double dot = 0, absolute = 0;
      for (size_t i = 0; i < size; ++i) {
        x16[i] = ToBf16(x[i] = FromBf16(ToBf16(static_cast<float>(random.Uniform() - 0.5))));
        y16[i] = ToBf16(y[i] = FromBf16(ToBf16(static_cast<float>(random.Uniform() - 0.5))));
        dot += double{x[i]} * y[i];
        absolute += std::abs(double{x[i]} * y[i]);
      }
      sum = y;
      AddRow(x.data(), dim, sum.data());
      ScaleRowTo(TileType::kF32, x.data(), dim, 3, out.data());
      ScaleRowTo(TileType::kBF16, x.data(), dim, 1.0f / 3, out16.data());
      for (size_t i = 0; i < size; ++i) {
        ASSERT_EQ(sum[i], x[i] + y[i]);
        ASSERT_EQ(out[i], 3 * x[i]);
        ASSERT_NEAR(FromBf16(out16[i]), x[i] / 3, std::abs(x[i]) / 3 / 256);
      }
      const double bound = absolute * 0x1p-24 * (8 + dim / 8.0);
      EXPECT_NEAR(DotRows(TileType::kF32, x.data(), y.data(), dim), dot, bound);
      EXPECT_NEAR(DotRows(TileType::kBF16, x16.data(), y16.data(), dim), dot, bound);
    }
  });
}

TEST(TileLayoutTest, RoundingKeepsNanAndInfinity) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    const std::vector<float> x(33, std::bit_cast<float>(0x7fffffffu));  // a NaN that would wrap
    const std::vector<float> y(33, -std::numeric_limits<float>::infinity());
    uint16_t out[33];
    ScaleRowTo(TileType::kBF16, x.data(), 33, 1, out);
    for (const uint16_t value : out) EXPECT_TRUE(std::isnan(FromBf16(value)));
    ScaleRowTo(TileType::kBF16, y.data(), 33, 1, out);
    for (const uint16_t value : out) EXPECT_EQ(FromBf16(value), y[0]);
  });
}

}  // namespace
}  // namespace lwm::kernels
