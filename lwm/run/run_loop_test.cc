#include "lwm/run/run_loop.h"

#include <gtest/gtest.h>

namespace lwm::run {
namespace {

TEST(RunClockTest, TheMeanForgetsSlowFirstStepsAndFollowsLater) {
  RunClock clock(0, {});
  for (const double seconds : {9.0, 3.0, 2.0}) clock.AddStep(seconds);
  EXPECT_EQ(clock.step_seconds(), 2.0);
  clock.AddStep(4.0);
  EXPECT_NEAR(clock.step_seconds(), 2.1, 1e-12);
  EXPECT_NEAR(clock.SecondsLeft(10), 21, 1e-9);
}

TEST(RunClockTest, TheTimeThatIsLeftEndsWithTheLimit) {
  RunClock clock(0.5, {});
  for (int i = 0; i < 3; ++i) clock.AddStep(2);
  EXPECT_NEAR(clock.SecondsLeft(5), 10, 1e-9);
  EXPECT_LE(clock.SecondsLeft(1000), 30);
  EXPECT_GT(clock.SecondsLeft(1000), 20);
  EXPECT_EQ(RunClock(1e-12, {}).SecondsLeft(1000), 0);
}

TEST(RunClockTest, BeingAskedIsStrongerThanTheTimeLimit) {
  const auto world = dist::MakeSelfCommunicator();
  bool asked = false;
  const auto stop = [&] { return asked; };
  EXPECT_EQ(RunClock(0, {}).EndsEarly(*world), EarlyEnd::kNo);
  const RunClock patient(60, stop), late(1e-12, stop);
  EXPECT_EQ(patient.EndsEarly(*world), EarlyEnd::kNo);
  EXPECT_EQ(late.EndsEarly(*world), EarlyEnd::kOutOfTime);
  asked = true;
  EXPECT_EQ(patient.EndsEarly(*world), EarlyEnd::kAsked);
  EXPECT_EQ(late.EndsEarly(*world), EarlyEnd::kAsked);
  EXPECT_NE(late.StoppedLine(EarlyEnd::kAsked, 12).find("(as asked) at step 12"),
            std::string::npos);
}

TEST(ResumeLinesTest, NameEverySettingThatChangedAndNoOther) {
  const Json before = {{"train", {{"steps", 4}, {"dtype", "bf16"}}}};
  const Json now = {{"train", {{"steps", 6}, {"dtype", "bf16"}, {"new", 1}}},
                    {"pictures", {{"every", 0}}}};
  const auto lines = ResumeLines("run/checkpoints/step_4", 4, 6, before, now);
  EXPECT_EQ(lines, (std::vector<std::string>{"resuming from run/checkpoints/step_4: step 4 of 6",
                                             "  changed: train.steps 4 -> 6"}));
  EXPECT_NE(ResumeLines("x", 6, 6, now, now).at(0).find("nothing is left to do"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::run
