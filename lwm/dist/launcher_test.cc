#include "lwm/dist/launcher.h"

#include <gtest/gtest.h>
#include <sched.h>

#include <cstdlib>
#include <functional>

#include "lwm/base/core_contention.h"
#include "lwm/base/process.h"

namespace lwm::dist {
namespace {

void BindToFirstAllowedCore() {
  cpu_set_t allowed, one;
  sched_getaffinity(0, sizeof(allowed), &allowed);
  CPU_ZERO(&one);
  for (int core = 0; core < CPU_SETSIZE && CPU_COUNT(&one) == 0; ++core)
    if (CPU_ISSET(core, &allowed)) CPU_SET(core, &one);
  sched_setaffinity(0, sizeof(one), &one);
}

class LauncherTest : public testing::Test {
 protected:
  void SetUp() override {
    GTEST_FLAG_SET(death_test_style, "fast");  // a child whose parent, the test, is not bound
    if (AllowedCores() < 2) GTEST_SKIP() << "needs two cores";
  }
  // Whether a process that was bound to one core in this environment may use more afterwards.
  void ExpectUndone(bool undone, const std::function<void()>& set_environment) {
    EXPECT_EXIT(
        {
          for (const char* name :
               {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_COMM_WORLD_LOCAL_SIZE"})
            unsetenv(name);
          set_environment();
          BindToFirstAllowedCore();
          const bool said = UndoDefaultBinding();
          std::exit(said == (AllowedCores() > 1) && said == undone ? 0 : 1);
        },
        testing::ExitedWithCode(0), "");
  }
};

void Bound(const char* ranks) {
  setenv("OMPI_MCA_orte_bound_at_launch", "1", 1);
  setenv("OMPI_COMM_WORLD_LOCAL_SIZE", ranks, 1);
}

TEST(LaunchedRankTest, ComesFromWhicheverLauncherThereIs) {
  const auto rank_with = [](const char* name, const char* value) {
    EXPECT_EXIT(
        {
          for (const char* other :
               {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"})
            unsetenv(other);
          if (value) setenv(name, value, 1);
          std::exit(LaunchedRank() == (value ? std::atoi(value) : 0) ? 0 : 1);
        },
        testing::ExitedWithCode(0), "")
        << name;
  };
  rank_with("", nullptr);
  rank_with("OMPI_COMM_WORLD_RANK", "3");
  rank_with("PMI_RANK", "4");
  rank_with("SLURM_PROCID", "5");
}

TEST_F(LauncherTest, DefaultBindingOfOpenMpiIsUndone) {
  ExpectUndone(true, [] { Bound("1"); });
}

TEST_F(LauncherTest, BindingThatSomebodyAskedForStays) {
  ExpectUndone(false, [] {});  // taskset, a batch system
  ExpectUndone(false, [] {
    Bound("1");
    setenv("OMPI_MCA_hwloc_base_binding_policy", "core", 1);
  });
  ExpectUndone(false, [] {
    Bound("1");
    setenv("OMPI_MCA_rmaps_base_mapping_policy", "socket:PE=1", 1);
  });
}

TEST_F(LauncherTest, RanksThatHaveTheirShareStayWhereTheyAre) {
  const std::string ranks = std::to_string(MachineCores());
  ExpectUndone(false, [&] { Bound(ranks.c_str()); });
}

}  // namespace
}  // namespace lwm::dist
