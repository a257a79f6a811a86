#include "lwm/base/pace.h"

#include <gtest/gtest.h>

#include <chrono>
#include <thread>

namespace lwm {
namespace {

TEST(PaceTest, TellsRateAndTimeLeftFromTheTimeSoFar) {
  Pace pace(0.02);
  EXPECT_FALSE(pace.is_due());
  std::this_thread::sleep_for(std::chrono::milliseconds(50));
  EXPECT_TRUE(pace.is_due());
  pace.Shown();
  EXPECT_FALSE(pace.is_due());
  EXPECT_GE(pace.seconds(), 0.05);
  const double rate = pace.Rate(10);
  EXPECT_LE(rate, 10 / 0.05);
  EXPECT_GT(rate, 0);
  EXPECT_EQ(pace.Left(1), "100.0 %, 0 s left");
  // 0.05 s or more for the first 2000th part: 100 s or more for the rest.
  EXPECT_EQ(pace.Left(0.0005).find("0.1 %, "), 0u) << pace.Left(0.0005);
  EXPECT_NE(pace.Left(0.0005).find(" min "), std::string::npos) << pace.Left(0.0005);
}

}  // namespace
}  // namespace lwm
