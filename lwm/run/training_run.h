#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <string>

#include "lwm/base/folder_lock.h"
#include "lwm/base/json.h"
#include "lwm/config/training_sections.h"
#include "lwm/dist/communicator.h"
#include "lwm/run/metrics.h"
#include "lwm/run/run_loop.h"

namespace lwm::run {

struct RunResult {
  int64_t step = 0;  // the last one done
  double loss = 0;   // of that step; 0 when no step was left to do
  std::filesystem::path checkpoint;
};

// Time and memory of a step that was just done.
struct StepCost {
  double seconds = 0;
  double mean_seconds = 0;  // running mean
  double seconds_left = 0;  // of the run
  double peak_gib = 0;      // sum over all ranks
};

// A training from its empty or interrupted run folder to its last checkpoint: the lock, the loop,
// logs, curves and early ends. The phases are a derived class's; all are collective but for those
// of rank 0.
class TrainingRun {
 public:
  // `settings` {"section": {"key": value}}: every setting as used. `loop`, `world` and `hooks` must
  // outlive the run.
  TrainingRun(const config::LoopSection& loop, Json settings, dist::Communicator& world,
              const RunHooks& hooks);
  virtual ~TrainingRun() = default;
  TrainingRun(const TrainingRun&) = delete;
  TrainingRun& operator=(const TrainingRun&) = delete;

  // Until all steps are done, the time is up or somebody asks. Once.
  RunResult Execute();

 protected:
  // Everything before the first step. When there is a checkpoint(), ends with GoOn.
  virtual void Prepare() = 0;
  // Optimizer step number step(); returns its loss.
  virtual double Step() = 0;
  // Of the step just done, on rank 0: its line of metrics.jsonl, and, every log_every steps, one
  // for a person.
  virtual Json Metrics(const StepCost& cost) = 0;
  virtual std::string ProgressLine(const StepCost& cost) = 0;
  // Evaluation, checkpoint, images: what is due. `last`: the run ends here.
  virtual void AfterStep(bool last) = 0;
  // Returns the folder of the new checkpoint.
  virtual std::filesystem::path WriteCheckpoint() = 0;
  // On rank 0. Returns the reason when they could not be drawn, "" on success.
  virtual std::string DrawCurves() = 0;

  dist::Communicator& world() const { return world_; }
  bool is_root() const { return world_.rank() == 0; }
  const std::filesystem::path& folder() const { return folder_; }
  const Json& settings() const { return settings_; }
  int64_t step() const { return step_; }  // steps done
  // The newest: resumed from, then saved.
  const std::optional<std::filesystem::path>& checkpoint() const { return checkpoint_; }

  // One line for a person, of rank 0 only; Warn with "warning: " before it.
  void Say(const std::string& line) const;
  void Warn(const std::string& problem) const { Say("warning: " + problem); }
  // The run goes on after `step`; names the settings that have changed since.
  void GoOn(int64_t step, const Json& settings_before);
  bool IsDue(int64_t every, bool last) const { return last || (every > 0 && step_ % every == 0); }
  // A checkpoint, and the curves up to it.
  void Save();
  // On rank 0. A line of eval.jsonl.
  void LogEvaluation(const Json& line) { evaluations_->Append(line); }
  void UpdateCurves();
  // On rank 0. What only shows how the run goes must not end it: a full disk, memory that is short
  // for once or a bad prompt costs the warning "no THING at step N: why".
  void Attempt(const char* thing, const std::function<void()>& work) const;

 private:
  void OpenLogs();
  double TimedStep();

  const config::LoopSection& loop_;
  const Json settings_;
  dist::Communicator& world_;
  const RunHooks& hooks_;
  const std::filesystem::path folder_;
  std::unique_ptr<FolderLock> lock_;  // of it, on rank 0
  std::optional<std::filesystem::path> checkpoint_;
  std::unique_ptr<StepLog> metrics_, evaluations_;  // rank 0
  std::optional<RunClock> clock_;                   // from the first step on
  int64_t step_ = 0;
  bool warned_of_curves_ = false;
};

}  // namespace lwm::run
