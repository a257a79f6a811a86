#include "lwm/ops/short_waits.h"

#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <atomic>
#include <filesystem>
#include <iterator>

namespace lwm::ops {
namespace {

int64_t Threads() {
  return std::distance(std::filesystem::directory_iterator("/proc/self/task"), {});
}

class ShortWaitsTest : public testing::Test {
 protected:
  void SetUp() override {
    unsetenv("OMP_WAIT_POLICY");
    unsetenv("GOMP_SPINCOUNT");
  }
};

TEST_F(ShortWaitsTest, HoldsThreadsWhileOnAndNoneAfterwards) {
  const int64_t before = Threads();
  ShortWaits waits(1);
  for (int i = 0; i < 3; ++i) {
    waits.Set(true);
    waits.Set(true);
    EXPECT_GT(Threads(), before);
    std::atomic<int64_t> sum{0};
    at::parallel_for(0, 100, 1, [&](int64_t begin, int64_t end) { sum += end - begin; });
    EXPECT_EQ(sum, 100);
    waits.Set(false);
  }
  EXPECT_LE(Threads(), before + at::get_num_threads());
}

TEST_F(ShortWaitsTest, TheUsersPolicyStays) {
  const int64_t before = Threads();
  setenv("OMP_WAIT_POLICY", "active", 1);
  ShortWaits waits(1);
  waits.Set(true);
  EXPECT_EQ(Threads(), before);
}

}  // namespace
}  // namespace lwm::ops
