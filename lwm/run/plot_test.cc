#include "lwm/run/plot.h"

#include <gtest/gtest.h>

#include <cstdlib>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/run/metrics.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::run {
namespace {

namespace fs = std::filesystem;

class PlotTest : public ::testing::Test {
 protected:
  PlotTest() { fs::create_directories(folder_); }

  testing_support::TemporaryFolder outer_;
  const fs::path folder_ = outer_ / "plot's folder";  // which the shell must not see unquoted
};

TEST_F(PlotTest, RunFolderGivesAPngOfTrainingAndHeldOutLoss) {
  if (std::system("command -v gnuplot >/dev/null 2>&1") != 0) GTEST_SKIP() << "no gnuplot";
  StepLog metrics(folder_ / "metrics.jsonl", 0), eval(folder_ / "eval.jsonl", 0);
  for (int64_t step = 1; step <= 100; ++step)
    metrics.Append({{"step", step}, {"loss", 10.0 / static_cast<double>(step)}});
  eval.Append({{"step", 50}, {"loss", 1.0}});
  const auto curves = LossCurves(folder_);
  ASSERT_EQ(curves.size(), 3u);
  EXPECT_EQ(curves[0].points.size(), 100u);
  EXPECT_EQ(curves[2].points.size(), 1u);
  EXPECT_EQ(PlotCurves(folder_ / "loss.png", curves), "");
  EXPECT_EQ(ReadFile(folder_ / "loss.png").substr(1, 3), "PNG");
}

TEST_F(PlotTest, MissingGnuplotIsAReasonNotAFailure) {
  const std::string path = std::getenv("PATH");
  setenv("PATH", "/nowhere", 1);
  const std::string reason = PlotCurves(folder_ / "loss.png", {{"training", {{1, 2}, {2, 1}}}});
  setenv("PATH", path.c_str(), 1);
  EXPECT_NE(reason.find("is gnuplot installed"), std::string::npos);
  EXPECT_FALSE(fs::exists(folder_ / "loss.png"));
}

TEST_F(PlotTest, DamagedLinesOfALogAreNoReasonToEndTheRun) {
  WriteFileAtomically(folder_ / "metrics.jsonl",
                      "{\"step\": 1, \"loss\": 3}\nnonsense\n{\"step\": 2, \"loss\": null}\n"
                      "{\"step\": 3, \"loss\": 2}\n");
  EXPECT_EQ(LossCurves(folder_)[0].points,
            (std::vector<std::pair<double, double>>{{1, 3}, {3, 2}}));
}

TEST_F(PlotTest, EmptyRunSaysSo) {
  EXPECT_EQ(PlotCurves(folder_ / "loss.png", LossCurves(folder_)), "nothing to plot yet");
}

}  // namespace
}  // namespace lwm::run
