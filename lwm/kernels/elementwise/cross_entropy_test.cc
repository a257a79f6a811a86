#include "lwm/kernels/elementwise/cross_entropy.h"

#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <random>
#include <string>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

std::vector<float> RandomLogits(size_t count, uint32_t seed, float spread) {
  std::mt19937 rng(seed);
  std::normal_distribution<float> normal(0, spread);
  std::vector<float> values(count);
  for (float& value : values) value = FloatFromBf16(Bf16FromFloat(normal(rng)));
  return values;
}

struct Expected {
  double nll, largest;
  std::vector<double> softmax_V;
};
Expected Reference(const std::vector<float>& logits_V, size_t target) {
  Expected e{0, logits_V[0], std::vector<double>(logits_V.size())};
  for (const double x : logits_V) e.largest = std::max(e.largest, x);
  double sum = 0;
  for (const double x : logits_V) sum += std::exp(x - e.largest);
  for (size_t v = 0; v < logits_V.size(); ++v)
    e.softmax_V[v] = std::exp(logits_V[v] - e.largest) / sum;
  e.nll = std::log(sum) + e.largest - logits_V[target];
  return e;
}

void ExpectMatchesFloat64(size_t vocab, float spread, const char* where) {
  const auto before = RandomLogits(vocab, static_cast<uint32_t>(vocab), spread);
  const size_t target = vocab / 2;
  const auto label = static_cast<int64_t>(target);
  const Expected e = Reference(before, target);
  const float weight = 0.75f;
  std::vector<float> logits = before;
  std::vector<uint16_t> logits16(vocab);
  for (size_t v = 0; v < vocab; ++v) logits16[v] = Bf16FromFloat(before[v]);
  float nll = 0, nll16 = 0, nll_forward = 0;
  CrossEntropy(logits.data(), 1, vocab, &label, nullptr, &nll_forward);
  ASSERT_EQ(logits, before) << where;
  CrossEntropy(logits.data(), 1, vocab, &label, &weight, &nll);
  CrossEntropy(logits16.data(), 1, vocab, &label, &weight, &nll16);
  ASSERT_NEAR(nll, e.nll, 1e-6 + 2e-7 * (std::abs(e.largest) + e.nll)) << where << " " << vocab;
  ASSERT_EQ(nll, nll16);
  ASSERT_EQ(nll, nll_forward);
  for (size_t v = 0; v < vocab; ++v) {
    const double expected = weight * (e.softmax_V[v] - (v == target ? 1 : 0));
    ASSERT_NEAR(logits[v], expected, 1e-6 * std::abs(expected) + 2e-7) << where << " " << vocab;
    ASSERT_NEAR(FloatFromBf16(logits16[v]), expected, 0x1p-8 * std::abs(expected) + 4e-7)
        << where << " " << vocab;
  }
}

TEST(CrossEntropyTest, MatchesFloat64OnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t vocab = 1; vocab <= 67; ++vocab) ExpectMatchesFloat64(vocab, 3, target);
    // One lane adds a row in sequence: the error of long rows grows faster there.
    ExpectMatchesFloat64(std::string(target) == "SCALAR" ? 300 : 8448, 5, target);
    ExpectMatchesFloat64(1000, 60, target);
  });
}

TEST(CrossEntropyTest, ANanRowGivesNanAndTheNextRowIsUntouched) {
  ForEachTarget([](const char* target) {
    for (const size_t place : {0u, 20u, 36u}) {
      auto logits_RV = RandomLogits(2 * 37, 1, 2);
      logits_RV[place] = NAN;
      const int64_t targets[] = {3, 4};
      const float weights[] = {1, 1};
      float nll[2];
      CrossEntropy(logits_RV.data(), 2, 37, targets, weights, nll);
      EXPECT_TRUE(std::isnan(nll[0])) << target << " " << place;
      EXPECT_TRUE(std::isnan(logits_RV[3])) << target << " " << place;
      EXPECT_TRUE(std::isfinite(nll[1])) << target << " " << place;
      for (size_t v = 37; v < 74; ++v) EXPECT_TRUE(std::isfinite(logits_RV[v])) << target;
    }
  });
}

TEST(CrossEntropyTest, AnImpossibleTokenHasProbabilityZero) {
  const float infinity = std::numeric_limits<float>::infinity();
  float logits[] = {1, -infinity, 2, -1000}, nll = 0;
  const int64_t target = 2;
  const float weight = 1;
  CrossEntropy(logits, 1, 4, &target, &weight, &nll);
  EXPECT_NEAR(nll, std::log1p(std::exp(-1.0)), 1e-6);
  EXPECT_EQ(logits[1], 0.0f);
  EXPECT_EQ(logits[3], 0.0f);
}

TEST(CrossEntropyTest, WeightZeroClearsTheRow) {
  float logits[] = {1, NAN, 2}, nll = 0;
  const int64_t target = 0;
  const float weight = 0;
  CrossEntropy(logits, 1, 3, &target, &weight, &nll);
  for (const float gradient : logits) EXPECT_EQ(gradient, 0.0f);
}

}  // namespace
}  // namespace lwm::kernels
