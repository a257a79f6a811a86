#include "lwm/run/training_run.h"

#include <exception>
#include <utility>

#include "lwm/base/file.h"
#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/run/checkpoint_find.h"
#include "lwm/run/run_folder.h"

namespace lwm::run {

TrainingRun::TrainingRun(const config::LoopSection& loop, Json settings, dist::Communicator& world,
                         const RunHooks& hooks)
    : loop_(loop),
      settings_(std::move(settings)),
      world_(world),
      hooks_(hooks),
      folder_(loop.run_folder) {}

RunResult TrainingRun::Execute() {
  // First the lock: FindLatestValid removes what interrupted saves left, which must not be a save
  // that another process is making.
  lock_ = PrepareRunFolder(folder_, world_);
  checkpoint_ = FindLatestValid(world_, folder_, [&](const std::string& line) { Say(line); });
  Prepare();
  if (is_root()) OpenLogs();
  clock_.emplace(loop_.max_minutes, hooks_.stop);
  double loss = 0;
  EarlyEnd end = EarlyEnd::kNo;
  while (step_ < loop_.steps && end == EarlyEnd::kNo) {
    loss = TimedStep();
    end = clock_->EndsEarly(world_);
    if (end == EarlyEnd::kAsked) {
      Save();  // and nothing else: whoever asked is waiting
    } else {
      AfterStep(end == EarlyEnd::kOutOfTime || step_ == loop_.steps);
    }
  }
  if (end != EarlyEnd::kNo && step_ < loop_.steps) Say(clock_->StoppedLine(end, step_));
  return {.step = step_, .loss = loss, .checkpoint = checkpoint_.value_or(std::filesystem::path())};
}

void TrainingRun::OpenLogs() {
  WriteFileAtomically(folder_ / "config.json", settings_.dump(2) + "\n");
  // Steps after the checkpoint run again: StepLog drops their lines.
  metrics_ = std::make_unique<StepLog>(folder_ / "metrics.jsonl", step_, /*csv=*/true);
  evaluations_ = std::make_unique<StepLog>(folder_ / "eval.jsonl", step_);
  for (const auto* log : {metrics_.get(), evaluations_.get()})
    if (!log->damage().empty()) Warn(log->damage());
}

double TrainingRun::TimedStep() {
  const double begin = MonotonicSeconds();
  const double loss = Step();
  const double seconds = MonotonicSeconds() - begin;
  ++step_;
  clock_->AddStep(seconds);
  const int64_t left = loop_.steps - step_;
  const StepCost cost = {.seconds = seconds,
                         .mean_seconds = clock_->step_seconds(),
                         .seconds_left = clock_->SecondsLeft(left),
                         .peak_gib = PeakGib(world_)};
  if (!is_root()) return loss;
  metrics_->Append(Metrics(cost));
  if (step_ % loop_.log_every == 0 || left == 0) Say(ProgressLine(cost));
  return loss;
}

void TrainingRun::Say(const std::string& line) const {
  if (is_root() && hooks_.log) hooks_.log(line);
}

void TrainingRun::GoOn(int64_t step, const Json& settings_before) {
  step_ = step;
  for (const std::string& line :
       ResumeLines(*checkpoint_, step, loop_.steps, settings_before, settings_))
    Say(line);
}

void TrainingRun::Save() {
  checkpoint_ = WriteCheckpoint();
  Say("saved " + checkpoint_->string());
  if (is_root()) UpdateCurves();
}

void TrainingRun::UpdateCurves() {
  const std::string problem = DrawCurves();
  if (!problem.empty() && !warned_of_curves_) Warn(problem);
  warned_of_curves_ = warned_of_curves_ || !problem.empty();
}

void TrainingRun::Attempt(const char* thing, const std::function<void()>& work) const {
  try {
    work();
  } catch (const std::exception& error) {
    const std::string text = error.what();  // LibTorch's go on with a stack
    Warn(fmt::format("no {} at step {}: {}", thing, step_, text.substr(0, text.find('\n'))));
  }
}

}  // namespace lwm::run
