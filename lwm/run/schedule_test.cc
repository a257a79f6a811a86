#include "lwm/run/schedule.h"

#include <gtest/gtest.h>

namespace lwm::run {
namespace {

TEST(ScheduleTest, FollowsThePublishedRatesOfWarmupAndCosine) {
  // The rates that the reference run logged: warm-up 2, decay 5, 0 -> 0.01 -> 0.001.
  const Schedule schedule{.cosine = true,
                          .init_lr = 0,
                          .lr = 0.01,
                          .min_lr = 0.001,
                          .warmup_steps = 2,
                          .decay_steps = 5};
  const double expected[] = {0, 0.005, 0.01, 0.00775, 0.00325, 0.001, 0.001, 0.001};
  for (int64_t step = 0; step < 8; ++step)
    EXPECT_NEAR(LearningRate(schedule, step), expected[step], 1e-15) << step;
}

TEST(ScheduleTest, ConstantStaysAfterWarmup) {
  config::OptimizerSection section;
  section.schedule = "constant";
  section.lr = 0.5;
  section.init_lr = 0.1;
  section.warmup_steps = 4;
  const Schedule schedule = MakeSchedule(section, 10);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 0), 0.1);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 2), 0.3);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 4), 0.5);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 1000), 0.5);
}

TEST(ScheduleTest, DecayDefaultsToTheWholeRunAndNoWarmupStartsAtThePeak) {
  config::OptimizerSection section;
  section.lr = 1;
  section.min_lr = 0.1;
  const Schedule schedule = MakeSchedule(section, 100);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 0), 1);
  EXPECT_NEAR(LearningRate(schedule, 50), 0.55, 1e-12);
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 100), 0.1);
}

TEST(ScheduleTest, WarmupOfTheWholeDecayJumpsToTheMinimum) {
  const Schedule schedule{
      .cosine = true, .init_lr = 0, .lr = 1, .min_lr = 0.25, .warmup_steps = 3, .decay_steps = 3};
  EXPECT_DOUBLE_EQ(LearningRate(schedule, 3), 0.25);
}

}  // namespace
}  // namespace lwm::run
