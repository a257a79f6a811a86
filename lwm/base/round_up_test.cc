#include "lwm/base/round_up.h"

#include <gtest/gtest.h>

namespace lwm {
namespace {

TEST(RoundUpTest, GivesTheNextMultipleOrTheNumberItself) {
  for (const int64_t unit : {1, 2, 3, 16, 4096})
    for (int64_t value = 0; value < 3 * unit; ++value) {
      const int64_t rounded = RoundUp(value, unit);
      EXPECT_EQ(rounded % unit, 0);
      EXPECT_GE(rounded, value);
      EXPECT_LT(rounded - value, unit);
    }
}

}  // namespace
}  // namespace lwm
