#include "lwm/kernels/int16_product.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <random>
#include <vector>

#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

struct Problem {
  Problem(size_t num_rows, size_t num_terms) : rows(num_rows), depth(num_terms) {
    std::mt19937 rng(7);
    std::normal_distribution<float> normal;
    std::uniform_int_distribution<int> integer(-32767, 32767);
    for (float& x : a_RK) x = normal(rng);
    for (int16_t& w : w_K32) w = static_cast<int16_t>(integer(rng));
    for (float& scale : scale_32) scale = std::exp(normal(rng));
  }
  std::vector<float> Run() const {
    std::vector<float> scratch(depth * kInt16Panel), c_R32(rows * kInt16Panel, NAN);
    Int16Product(a_RK.data(), rows, depth, w_K32.data(), scale_32.data(), scratch.data(),
                 c_R32.data());
    return c_R32;
  }

  size_t rows, depth;
  std::vector<float> a_RK = std::vector<float>(rows * depth);
  std::vector<int16_t> w_K32 = std::vector<int16_t>(depth * kInt16Panel);
  std::vector<float> scale_32 = std::vector<float>(kInt16Panel);
};

void ExpectMatches(const Problem& problem, const char* target) {
  const std::vector<float> c_R32 = problem.Run();
  for (size_t i = 0; i < c_R32.size(); ++i) {
    const size_t r = i / kInt16Panel, n = i % kInt16Panel;
    double sum = 0, size = 0;
    for (size_t k = 0; k < problem.depth; ++k) {
      const double term = static_cast<double>(problem.a_RK[r * problem.depth + k]) *
                          problem.w_K32[k * kInt16Panel + n] * problem.scale_32[n];
      sum += term;
      size += std::abs(term);
    }
    ASSERT_NEAR(c_R32[i], sum, 1e-6 * size)
        << target << " " << problem.rows << " x " << problem.depth << " at " << i;
  }
}

TEST(Int16ProductTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t rows = 1; rows <= 27; ++rows) ExpectMatches(Problem(rows, 1 + rows * 5), target);
    ExpectMatches(Problem(3, 1), target);
    ExpectMatches(Problem(48, 260), target);
  });
}

TEST(Int16ProductTest, RowsDoNotDependOnThoseBeside) {
  ForEachTarget([](const char* target) {
    Problem problem(17, 40);
    const std::vector<float> all = problem.Run();
    for (problem.rows = 1; problem.rows < 17; ++problem.rows) {
      const std::vector<float> some = problem.Run();
      ASSERT_TRUE(std::equal(some.begin(), some.end(), all.begin())) << target;
    }
  });
}

TEST(Int16ProductTest, NanStaysInItsRowAndScale) {
  ForEachTarget([](const char* target) {
    Problem problem(14, 40);
    problem.a_RK[5 * 40 + 3] = NAN;
    problem.scale_32[9] = NAN;
    const std::vector<float> c_R32 = problem.Run();
    for (size_t i = 0; i < c_R32.size(); ++i)
      ASSERT_EQ(std::isnan(c_R32[i]), i / kInt16Panel == 5 || i % kInt16Panel == 9) << target;
  });
}

}  // namespace
}  // namespace lwm::kernels
