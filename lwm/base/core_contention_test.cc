#include "lwm/base/core_contention.h"

#include <gtest/gtest.h>

#include <atomic>
#include <chrono>
#include <thread>

#include "lwm/base/process.h"

namespace lwm {
namespace {

TEST(CoreContentionTest, CoresOfOthersAreWhatIsBusyBeyondThisProcess) {
  const CoreTimes from{100, 40, 1000};
  EXPECT_DOUBLE_EQ(CoresOfOthers(from, {103, 41, 1002}), 1);
  EXPECT_DOUBLE_EQ(CoresOfOthers(from, {101, 41.5, 1002}), 0);  // counted in coarser steps
  EXPECT_DOUBLE_EQ(CoresOfOthers(from, from), 0);
  EXPECT_DOUBLE_EQ(CoresOfOthers({-1, 40, 1000}, {-1, 41, 1002}), 0);  // the system does not tell
}

TEST(CoreContentionTest, TimesGrowWithWorkOfThisProcess) {
  const CoreTimes from = ReadCoreTimes();
  if (from.busy < 0) GTEST_SKIP() << "this system has no /proc/stat";
  while (ProcessSeconds() < from.own + 0.1) {
  }
  const CoreTimes to = ReadCoreTimes();
  EXPECT_GE(to.own - from.own, 0.1);
  EXPECT_GE(to.busy - from.busy, 0.05);  // the system counts by its clock's ticks
}

// More threads than there are cores: contended by one's own count, whatever else runs.
TEST(CoreContentionTest, WatchTellsAndEndsWithTheAnswerNo) {
  std::atomic<int> changes{0};
  {
    const ContentionWatch watch(2 * MachineCores() + 1, [&](bool) { ++changes; });
    for (int i = 0; i < 1000 && !CoresAreContended(); ++i)
      std::this_thread::sleep_for(std::chrono::milliseconds(10));
    EXPECT_TRUE(CoresAreContended());
    EXPECT_EQ(changes, 1);
  }
  EXPECT_FALSE(CoresAreContended());
  EXPECT_EQ(changes, 2);
}

}  // namespace
}  // namespace lwm
