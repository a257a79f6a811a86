#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>
#include <vector>

#include "lwm/base/json.h"
#include "lwm/dist/communicator.h"

namespace lwm::run {

// Parts of the training loop of decoders and of VQGANs (vision_train/).

// The caller's functions, called during a run.
struct RunHooks {
  // One line for a person; called on rank 0 only.
  std::function<void(const std::string& line)> log;
  // Asked on every rank after each step: true on any of them saves a checkpoint and ends the run
  // there. Empty (on every rank): nobody asks.
  std::function<bool()> stop;
};

enum class EarlyEnd { kNo, kOutOfTime, kAsked };

// The pace of a run and the time it has; the time runs from the construction on.
class RunClock {
 public:
  // `max_minutes` 0: no limit. `stop` as in RunHooks.
  RunClock(double max_minutes, std::function<bool()> stop);

  void AddStep(double seconds);
  // Running mean of the steps' times; the slower first steps of a process fade quickly.
  double step_seconds() const { return step_seconds_; }
  // Until `steps` more are done or the time is up, at least 0.
  double SecondsLeft(int64_t steps) const;

  // The strongest reason that any rank has; the same on every rank. Collective.
  EarlyEnd EndsEarly(dist::Communicator& world) const;
  // "stopped after 3 min 05 s (as asked) at step 12; run again to go on"
  std::string StoppedLine(EarlyEnd reason, int64_t step) const;

 private:
  double Elapsed() const;

  double max_seconds_;
  std::function<bool()> stop_;
  double start_;
  double step_seconds_ = 0;
  int64_t steps_timed_ = 0;
};

// Sum of the ranks' peak memory so far, GiB. Collective.
double PeakGib(dist::Communicator& world);

// Log lines of a resumed run: where it goes on, and every setting ({"section": {"key": value}})
// that has changed, so that an unintended change is seen.
std::vector<std::string> ResumeLines(const std::filesystem::path& checkpoint, int64_t step,
                                     int64_t steps, const Json& settings_before,
                                     const Json& settings_now);

}  // namespace lwm::run
