#include "lwm/kernels/elementwise/adamw.h"

#include <gtest/gtest.h>

#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

using Values = std::vector<float>;

Values Draw(size_t n, uint32_t seed, float spread) {
  std::mt19937 random(seed);
  std::normal_distribution<float> normal(0, spread);
  Values values(n);
  for (float& value : values) value = normal(random);
  return values;
}

struct State {
  explicit State(size_t n)
      : gradient(Draw(n, 1, 2)),
        value(Draw(n, 2, 1)),
        first(Draw(n, 3, 1)),
        second(Draw(n, 4, 1)),
        average(Draw(n, 5, 1)),
        copy(n, 7) {
    for (float& x : second) x *= x;
  }
  AdamWArrays arrays() {
    return {gradient.data(), value.data(),   first.data(),
            second.data(),   average.data(), copy.data()};
  }
  Values gradient, value, first, second, average;
  std::vector<uint16_t> copy;
};

constexpr AdamWStep kStep{.lr = 0.03,
                          .beta1 = 0.9,
                          .beta2 = 0.98,
                          .eps = 1e-3,
                          .decay = 0.5,
                          .correction1 = 0.271,
                          .correction2 = 0.0588,
                          .gradient_factor = 0.25,
                          .average_share = 0.125};

// Against the definition in f64.
void ExpectStepped(const State& before, const State& after, size_t i, const char* where) {
  const double g = 0.25 * static_cast<double>(before.gradient[i]);
  const double first = 0.9 * static_cast<double>(before.first[i]) + 0.1 * g;
  const double second = 0.98 * static_cast<double>(before.second[i]) + 0.02 * g * g;
  const double value = static_cast<double>(before.value[i]) * (1 - 0.03 * 0.5) -
                       0.03 / 0.271 * first / (std::sqrt(second / 0.0588) + 1e-3);
  const double average = static_cast<double>(before.average[i]) * 0.875 + value * 0.125;
  const double scale = 1 + std::abs(value);
  ASSERT_NEAR(after.first[i], first, 4e-7) << where;
  ASSERT_NEAR(after.second[i], second, 2e-7 * second) << where;
  ASSERT_NEAR(after.value[i], value, 3e-7 * scale) << where;
  ASSERT_NEAR(after.average[i], average, 3e-7 * scale) << where;
  ASSERT_EQ(after.copy[i], Bf16FromFloat(after.value[i])) << where;
}

TEST(AdamWTest, MatchesTheDefinitionAndTouchesNothingElse) {
  ForEachTarget([](const char* target) {
    for (size_t n = 2; n <= 67; ++n) {
      const State before(n);
      State after = before;
      AdamW(kStep, after.arrays(), 1, n - 1);
      for (size_t i = 1; i + 1 < n; ++i) ExpectStepped(before, after, i, target);
      for (const size_t i : {size_t{0}, n - 1}) {
        ASSERT_EQ(after.value[i], before.value[i]) << target;
        ASSERT_EQ(after.average[i], before.average[i]) << target;
        ASSERT_EQ(after.copy[i], 7) << target;
      }
    }
  });
}

TEST(AdamWTest, GoesWithoutAverageAndCopy) {
  State with(19), without(19);
  AdamWArrays arrays = without.arrays();
  arrays.average_n = nullptr;
  arrays.copy_n = nullptr;
  AdamW(kStep, with.arrays(), 0, 19);
  AdamW(kStep, arrays, 0, 19);
  EXPECT_EQ(with.value, without.value);
  EXPECT_EQ(without.average, State(19).average);
}

TEST(AdamWTest, NanStaysInItsElement) {
  State state(20);
  state.gradient[5] = NAN;
  AdamW(kStep, state.arrays(), 0, 20);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(state.value[i]), i == 5);
}

}  // namespace
}  // namespace lwm::kernels
