#include "lwm/base/count_text.h"

#include <gtest/gtest.h>

namespace lwm {
namespace {

TEST(CountTextTest, CountsHaveTheUnitThatKeepsThemShort) {
  EXPECT_EQ(ShortCount(0), "0");
  EXPECT_EQ(ShortCount(950), "950");
  EXPECT_EQ(ShortCount(9999), "9999");
  EXPECT_EQ(ShortCount(12345), "12.3K");
  EXPECT_EQ(ShortCount(999'949), "999.9K");
  EXPECT_EQ(ShortCount(999'960), "1.00M");
  EXPECT_EQ(ShortCount(5.52e6), "5.52M");
  EXPECT_EQ(ShortCount(999.996e6), "1.00G");
  EXPECT_EQ(ShortCount(25921.33e6), "25.92G");
  EXPECT_EQ(ShortCount(1.2e12), "1.20T");
  EXPECT_EQ(ShortCount(4.5e15), "4500.00T");
}

TEST(CountTextTest, TokensAreInPowersOf1024WhereTheyAreWhole) {
  EXPECT_EQ(ShortTokens(0), "0");
  EXPECT_EQ(ShortTokens(512), "512");
  EXPECT_EQ(ShortTokens(4096), "4K");
  EXPECT_EQ(ShortTokens(1536), "1536");
  EXPECT_EQ(ShortTokens(3 << 20), "3M");
}

}  // namespace
}  // namespace lwm
