#include "lwm/run/training_run.h"

#include <gtest/gtest.h>

#include <stdexcept>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/run/manifest.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::run {
namespace {

namespace fs = std::filesystem;

// A training without a model: step s has loss 1 / s.
class Counting : public TrainingRun {
 public:
  Counting(const config::LoopSection& loop, Json settings, dist::Communicator& world,
           const RunHooks& hooks)
      : TrainingRun(loop, std::move(settings), world, hooks), loop_(loop) {}

  std::vector<std::string> events;

 private:
  void Prepare() override {
    if (!checkpoint()) return;
    const Json state = ReadJsonFile(*checkpoint() / "state.json");
    GoOn(JsonGet<int64_t>(state, "step", "state"), state.at("settings"));
  }
  double Step() override {
    events.push_back(Cat("step ", step() + 1));
    return Loss(step() + 1);
  }
  Json Metrics(const StepCost& cost) override {
    EXPECT_GE(cost.seconds, 0);
    EXPECT_GT(cost.peak_gib, 0);
    return {{"step", step()}, {"loss", Loss(step())}};
  }
  std::string ProgressLine(const StepCost& /*cost*/) override { return Cat("at ", step()); }
  void AfterStep(bool last) override {
    if (IsDue(loop_.eval_every, last)) {
      events.push_back(Cat("evaluation ", step()));
      LogEvaluation({{"step", step()}});
      Attempt("image", [] { throw std::runtime_error("no disk\nframe #0"); });
    }
    if (IsDue(loop_.checkpoint_every, last)) Save();
  }
  fs::path WriteCheckpoint() override {
    events.push_back(Cat("save ", step()));
    const fs::path checkpoint = CheckpointsFolder(folder()) / Cat(kStepPrefix, step());
    fs::create_directories(checkpoint);
    WriteFileAtomically(checkpoint / "state.json",
                        Json{{"step", step()}, {"settings", settings()}}.dump());
    const Json files = {{"state.json", ManifestEntry(checkpoint / "state.json")}};
    WriteFileAtomically(checkpoint / kManifestName, ManifestText(files));
    return checkpoint;
  }
  std::string DrawCurves() override { return "no gnuplot"; }

  static double Loss(int64_t step) { return 1.0 / static_cast<double>(step); }

  const config::LoopSection& loop_;
};

class TrainingRunTest : public testing::Test {
 protected:
  TrainingRunTest() {
    loop_.run_folder = (folder_ / "run").string();
    loop_.steps = 5;
    loop_.log_every = 2;
    hooks_.log = [this](const std::string& line) { lines_.push_back(line); };
  }

  RunResult Execute() {
    lines_.clear();
    Counting run(loop_, {{"train", {{"steps", loop_.steps}}}}, *world_, hooks_);
    RunResult result = run.Execute();
    events_ = run.events;
    return result;
  }
  std::vector<int64_t> LoggedSteps(const char* file) const {
    std::vector<int64_t> steps;
    for (const Json& line : ReadStepLog(folder_ / "run" / file)) steps.push_back(line.at("step"));
    return steps;
  }

  const testing_support::TemporaryFolder folder_;
  const std::unique_ptr<dist::Communicator> world_ = dist::MakeSelfCommunicator();
  config::LoopSection loop_;
  RunHooks hooks_;
  std::vector<std::string> lines_, events_;
};

using Strings = std::vector<std::string>;
using Steps = std::vector<int64_t>;

TEST_F(TrainingRunTest, DoesEveryStepAndWhatIsDueAfterIt) {
  loop_.eval_every = 2;
  loop_.checkpoint_every = 4;
  const RunResult result = Execute();
  EXPECT_EQ(result.step, 5);
  EXPECT_EQ(result.loss, 0.2);
  EXPECT_EQ(result.checkpoint, folder_ / "run/checkpoints/step_5");
  EXPECT_EQ(events_, (Strings{"step 1", "step 2", "evaluation 2", "step 3", "step 4",
                              "evaluation 4", "save 4", "step 5", "evaluation 5", "save 5"}));
  EXPECT_EQ(LoggedSteps("metrics.jsonl"), (Steps{1, 2, 3, 4, 5}));
  EXPECT_EQ(LoggedSteps("eval.jsonl"), (Steps{2, 4, 5}));
  // The curves' problem is told once.
  const std::string no_image = "warning: no image at step ", saved = "saved " + loop_.run_folder;
  EXPECT_EQ(lines_, (Strings{"at 2", no_image + "2: no disk", "at 4", no_image + "4: no disk",
                             saved + "/checkpoints/step_4", "warning: no gnuplot", "at 5",
                             no_image + "5: no disk", saved + "/checkpoints/step_5"}));
  EXPECT_EQ(ReadJsonFile(folder_ / "run/config.json").at("train").at("steps"), 5);
}

TEST_F(TrainingRunTest, BeingAskedSavesAndDoesNothingElse) {
  loop_.eval_every = 1;
  int asked = 0;
  hooks_.stop = [&] { return ++asked == 3; };
  EXPECT_EQ(Execute().step, 3);
  EXPECT_EQ(events_,
            (Strings{"step 1", "evaluation 1", "step 2", "evaluation 2", "step 3", "save 3"}));
  EXPECT_NE(lines_.back().find("(as asked) at step 3"), std::string::npos) << lines_.back();
}

TEST_F(TrainingRunTest, TheEndOfTheTimeIsTreatedAsTheLastStep) {
  loop_.max_minutes = 1e-12;
  EXPECT_EQ(Execute().step, 1);
  EXPECT_EQ(events_, (Strings{"step 1", "evaluation 1", "save 1"}));
  EXPECT_NE(lines_.back().find("(train.max_minutes) at step 1"), std::string::npos);
}

TEST_F(TrainingRunTest, AResumedRunGoesOnFromItsNewestCheckpoint) {
  loop_.checkpoint_every = 2;
  loop_.steps = 3;
  Execute();
  fs::remove_all(folder_ / "run/checkpoints/step_3");  // as a kill before it would leave it
  loop_.steps = 4;
  EXPECT_EQ(Execute().step, 4);
  EXPECT_EQ(events_, (Strings{"step 3", "step 4", "evaluation 4", "save 4"}));
  EXPECT_EQ(LoggedSteps("metrics.jsonl"), (Steps{1, 2, 3, 4}));
  EXPECT_EQ(lines_[0], "resuming from " + loop_.run_folder + "/checkpoints/step_2: step 2 of 4");
  EXPECT_EQ(lines_[1], "  changed: train.steps 3 -> 4");
  const RunResult again = Execute();
  EXPECT_TRUE(events_.empty());
  EXPECT_EQ(again.step, 4);
  EXPECT_EQ(again.loss, 0);
  EXPECT_EQ(again.checkpoint, folder_ / "run/checkpoints/step_4");
}

TEST_F(TrainingRunTest, ASecondRunInTheFolderIsRefused) {
  Counting first(loop_, Json::object(), *world_, hooks_);
  hooks_.stop = [&] {
    EXPECT_ERROR(Counting(loop_, Json::object(), *world_, RunHooks()).Execute(),
                 kResourceExhausted);
    return true;
  };
  EXPECT_EQ(first.Execute().step, 1);
}

}  // namespace
}  // namespace lwm::run
