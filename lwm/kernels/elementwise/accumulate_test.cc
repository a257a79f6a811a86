#include "lwm/kernels/elementwise/accumulate.h"

#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lwm/kernels/bf16.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

TEST(AccumulateTest, AddsExactlyOnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t n = 1; n <= 67; ++n) {
      std::vector<float> sum(n + 1), expected(n + 1);
      std::vector<uint16_t> term(n + 1, Bf16FromFloat(100.0f));
      for (size_t i = 0; i < n; ++i) {
        term[i] = Bf16FromFloat(0.37f * static_cast<float>(i) - 3);
        sum[i] = 1.0f / static_cast<float>(i + 1);
        expected[i] = sum[i] + FloatFromBf16(term[i]);
      }
      Accumulate(sum.data(), term.data(), n);
      ASSERT_EQ(sum, expected) << target << " " << n;  // the element behind the end stays 0
    }
  });
}

TEST(AccumulateTest, NanStaysInItsElement) {
  std::vector<float> sum(20, 1.0f);
  std::vector<uint16_t> term(20, 0);
  term[5] = Bf16FromFloat(NAN);
  Accumulate(sum.data(), term.data(), 20);
  for (size_t i = 0; i < 20; ++i) EXPECT_EQ(std::isnan(sum[i]), i == 5);
}

}  // namespace
}  // namespace lwm::kernels
