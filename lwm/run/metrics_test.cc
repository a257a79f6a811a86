#include "lwm/run/metrics.h"

#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::run {
namespace {

class StepLogTest : public ::testing::Test {
 protected:
  std::vector<int64_t> Steps() const {
    std::vector<int64_t> steps;
    for (const Json& line : ReadStepLog(file_)) steps.push_back(line.at("step"));
    return steps;
  }

  testing_support::TemporaryFolder folder_;
  const std::filesystem::path file_ = folder_ / "metrics.jsonl";
};

TEST_F(StepLogTest, ResumedRunDropsTheStepsItWillRepeat) {
  {
    StepLog log(file_, 0);
    for (int64_t step = 1; step <= 5; ++step) log.Append({{"step", step}});
  }
  StepLog log(file_, 3);
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2, 3}));
  log.Append({{"step", 4}});
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2, 3, 4}));
}

TEST_F(StepLogTest, TornLastLineIsDropped) {
  WriteFileAtomically(file_, "{\"step\": 1}\n{\"step\": 2, \"lo");
  StepLog log(file_, 10);
  log.Append({{"step", 2}});
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 2}));
}

TEST_F(StepLogTest, FreshRunStartsEmpty) {
  WriteFileAtomically(file_, "{\"step\": 1}\n");
  StepLog log(file_, 0);
  EXPECT_TRUE(Steps().empty());
}

TEST_F(StepLogTest, DamagedLinesAreLeftOutAndTheFirstIsNamed) {
  WriteFileAtomically(file_, "{\"step\": 1}\n{\"step\": 2\n{\"step\": 3}\n{\"loss\": 1}\n[4]\n");
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 3}));
  {
    StepLog log(file_, 3);
    EXPECT_NE(log.damage().find("left out 3 damaged lines ("), std::string::npos) << log.damage();
    EXPECT_NE(log.damage().find("metrics.jsonl:2: not valid JSON"), std::string::npos)
        << log.damage();
    EXPECT_EQ(log.damage().find('\n'), std::string::npos);
    log.Append({{"step", 4}});
  }
  EXPECT_EQ(Steps(), (std::vector<int64_t>{1, 3, 4}));
  EXPECT_EQ(StepLog(file_, 4).damage(), "");
}

TEST_F(StepLogTest, UnwritablePlaceIsRefusedAtOnce) {
  try {
    StepLog log(folder_ / "missing" / "metrics.jsonl", 0);
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument);
  }
}

TEST_F(StepLogTest, ATableKeepsTheSameLinesUnderTheirNames) {
  {
    StepLog log(file_, 0, /*csv=*/true);
    log.Append({{"loss", 2.5}, {"step", 1}});
    log.Append({{"step", 2}, {"loss", 2.25}, {"new", 1}});
    log.Append({{"step", 3}});
  }
  EXPECT_EQ(ReadFile(folder_ / "metrics.csv"), "step,loss\n1,2.5\n2,2.25\n3,\n");
  StepLog log(file_, 1, /*csv=*/true);
  log.Append({{"step", 2}, {"loss", 1.0}});
  EXPECT_EQ(ReadFile(folder_ / "metrics.csv"), "step,loss\n1,2.5\n2,1.0\n");
  StepLog(folder_ / "eval.jsonl", 0).Append({{"step", 1}});
  EXPECT_FALSE(std::filesystem::exists(folder_ / "eval.csv"));
}

TEST(MetricsTest, JsonHasTheFieldsThatScriptsRelyOn) {
  const Json json = ToJson({.step = 3, .tokens = 100, .loss = 2.5});
  for (const char* key : {"step", "tokens", "loss", "text_loss", "vision_loss", "lr", "grad_norm",
                          "tokens_per_s", "attention_tflops", "peak_gib"})
    EXPECT_TRUE(json.contains(key)) << key;
  EXPECT_EQ(json.size(), 10u);
}

TEST(MetricsTest, ProgressLineShowsStepLossRateTimeAndMemory) {
  const StepMetrics metrics{
      .step = 120, .loss = 3.21449, .lr = 1e-3, .tokens_per_s = 12345, .peak_gib = 1.25};
  EXPECT_EQ(ProgressLine(metrics, 2000, 245),
            "step 120/2000  loss 3.2145  lr 1.00e-03  12.3K tokens/s  4 min 05 s left  1.2 GiB");
}

TEST(MetricsTest, AttentionFlopsIsTheBenchmarksFormula) {
  // Causal: 2 * H * T * T * K forward (up to the diagonal), backward 2.5 times that.
  const double tokens = 1 << 14;
  const double pairs = tokens * (tokens + 1) / 2;
  EXPECT_NEAR(AttentionFlops(pairs, 3, 8, 64) / (3.5 * 3 * 2 * 8 * tokens * tokens * 64), 1, 1e-4);
}

}  // namespace
}  // namespace lwm::run
