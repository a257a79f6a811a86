#include "lwm/kernels/gemv.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <string>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

struct F32 {
  using Lane = float;
  static float ToFloat(float x) { return x; }
  static float FromFloat(float x) { return x; }
};

struct Bf16 {
  using Lane = uint16_t;
  static float ToFloat(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }
  static uint16_t FromFloat(float x) {
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);
  }
};

template <class Type>
std::vector<typename Type::Lane> RandomNumbers(size_t size, uint64_t seed) {
  Random random(seed);
  std::vector<typename Type::Lane> numbers(size);
  for (auto& x : numbers) x = Type::FromFloat(static_cast<float>(random.Uniform() * 2 - 1));
  return numbers;
}

// Largest error in units of the bound that the header states.
template <class Type>
double WorstOverBound(size_t rows, size_t cols, size_t vectors, uint64_t seed) {
  const auto w_RC = RandomNumbers<Type>(rows * cols, seed);
  const auto x_MC = RandomNumbers<Type>(vectors * cols, seed + 1);
  const size_t stride = rows + 3;
  std::vector<float> y_MR(vectors * stride, -7);
  Gemv(w_RC.data(), rows, cols, x_MC.data(), vectors, y_MR.data(), stride);
  double worst = 0;
  for (size_t m = 0; m < vectors; ++m) {
    for (size_t r = 0; r < rows; ++r) {
      double want = 0, size = 0;
      for (size_t c = 0; c < cols; ++c) {
        const double product = static_cast<double>(Type::ToFloat(w_RC[r * cols + c])) *
                               Type::ToFloat(x_MC[m * cols + c]);
        want += product;
        size += std::abs(product);
      }
      const double bound = 0x1p-24 * (2 + std::sqrt(static_cast<double>(cols)) / 2) * size;
      const double error = std::abs(y_MR[m * stride + r] - want);
      worst = std::max(worst, bound > 0 ? error / bound : error);
    }
    for (size_t r = rows; r < stride; ++r) EXPECT_EQ(y_MR[m * stride + r], -7);
  }
  return worst;
}

template <class Type>
void ExpectWithinBoundOnEveryTarget() {
  double worst = 0;
  ForEachTarget([&](const char* target) {
    for (size_t cols = 0; cols <= 67; ++cols) {
      const double here = WorstOverBound<Type>(9, cols, 5, cols);
      EXPECT_LE(here, 1) << target << " cols " << cols;
      worst = std::max(worst, here);
    }
    for (size_t vectors = 1; vectors <= 9; ++vectors)
      for (size_t rows : {1, 3, 4, 6}) {
        const double here = WorstOverBound<Type>(rows, 1031, vectors, rows);
        EXPECT_LE(here, 1) << target << " rows " << rows << " vectors " << vectors;
        worst = std::max(worst, here);
      }
  });
  testing::Test::RecordProperty("worst_over_bound", std::to_string(worst));
}

TEST(GemvTest, F32StaysWithinTheStatedErrorOnEveryTargetAndTail) {
  ExpectWithinBoundOnEveryTarget<F32>();
}

TEST(GemvTest, Bf16StaysWithinTheStatedErrorOnEveryTargetAndTail) {
  ExpectWithinBoundOnEveryTarget<Bf16>();
}

// So threads may divide the rows, and a batch decodes as each of its rows would alone.
TEST(GemvTest, ARowHasTheSameBitsAloneAndInABlock) {
  const size_t rows = 11, cols = 333, vectors = 7;
  const auto w_RC = RandomNumbers<Bf16>(rows * cols, 5);
  const auto x_MC = RandomNumbers<Bf16>(vectors * cols, 6);
  std::vector<float> together(vectors * rows), alone(vectors * rows);
  Gemv(w_RC.data(), rows, cols, x_MC.data(), vectors, together.data(), rows);
  for (size_t m = 0; m < vectors; ++m)
    for (size_t r = 0; r < rows; ++r)
      Gemv(&w_RC[r * cols], 1, cols, &x_MC[m * cols], 1, &alone[m * rows + r], 1);
  EXPECT_EQ(together, alone);
}

TEST(GemvTest, NanStaysInItsRowOrItsVector) {
  const size_t rows = 6, cols = 40, vectors = 2;
  auto w_RC = RandomNumbers<F32>(rows * cols, 5);
  auto x_MC = RandomNumbers<F32>(vectors * cols, 6);
  w_RC[4 * cols + 39] = std::numeric_limits<float>::quiet_NaN();
  x_MC[1 * cols + 3] = std::numeric_limits<float>::quiet_NaN();
  std::vector<float> y_MR(vectors * rows);
  Gemv(w_RC.data(), rows, cols, x_MC.data(), vectors, y_MR.data(), rows);
  for (size_t m = 0; m < vectors; ++m)
    for (size_t r = 0; r < rows; ++r)
      EXPECT_EQ(std::isnan(y_MR[m * rows + r]), r == 4 || m == 1) << m << " " << r;
}

}  // namespace
}  // namespace lwm::kernels
