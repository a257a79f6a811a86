#include "lwm/run/run_loop.h"

#include <algorithm>
#include <span>
#include <utility>

#include "lwm/base/format.h"
#include "lwm/base/process.h"
#include "lwm/base/text.h"
#include "lwm/config/fields.h"

namespace lwm::run {

RunClock::RunClock(double max_minutes, std::function<bool()> stop)
    : max_seconds_(max_minutes * 60), stop_(std::move(stop)), start_(MonotonicSeconds()) {}

double RunClock::Elapsed() const { return MonotonicSeconds() - start_; }

void RunClock::AddStep(double seconds) {
  constexpr int64_t kSlowSteps = 3;
  constexpr double kKept = 0.95;
  // First steps build primitives and touch fresh memory: each replaces the estimate.
  step_seconds_ =
      steps_timed_++ < kSlowSteps ? seconds : kKept * step_seconds_ + (1 - kKept) * seconds;
}

double RunClock::SecondsLeft(int64_t steps) const {
  double left = step_seconds_ * static_cast<double>(steps);
  if (max_seconds_ > 0) left = std::min(left, max_seconds_ - Elapsed());
  return std::max(0.0, left);
}

EarlyEnd RunClock::EndsEarly(dist::Communicator& world) const {
  // The same on all ranks: without either reason the step needs no communication here.
  if (max_seconds_ == 0 && !stop_) return EarlyEnd::kNo;
  EarlyEnd mine = EarlyEnd::kNo;
  if (max_seconds_ > 0 && Elapsed() > max_seconds_) mine = EarlyEnd::kOutOfTime;
  if (stop_ && stop_()) mine = EarlyEnd::kAsked;
  // Clocks and signals differ between ranks; all must leave the loop after the same step.
  auto reason = static_cast<double>(mine);
  world.AllReduceMax(std::span(&reason, 1));
  return static_cast<EarlyEnd>(reason);
}

std::string RunClock::StoppedLine(EarlyEnd reason, int64_t step) const {
  return fmt::format("stopped after {} ({}) at step {}; run again to go on",
                     FormatDuration(Elapsed()),
                     reason == EarlyEnd::kAsked ? "as asked" : "train.max_minutes", step);
}

double PeakGib(dist::Communicator& world) {
  auto bytes = static_cast<double>(PeakMemoryBytes());
  world.AllReduceSum(std::span(&bytes, 1));
  return bytes / (int64_t{1} << 30);
}

std::vector<std::string> ResumeLines(const std::filesystem::path& checkpoint, int64_t step,
                                     int64_t steps, const Json& settings_before,
                                     const Json& settings_now) {
  std::vector<std::string> lines = {fmt::format("resuming from {}: step {} of {}{}",
                                                checkpoint.string(), step, steps,
                                                step >= steps ? "; nothing is left to do" : "")};
  for (const auto& [section, fields] : settings_now.items())
    for (const auto& [name, value] : fields.items()) {
      const Json old = settings_before.value(section, Json::object()).value(name, value);
      if (old != value)
        lines.push_back(fmt::format("  changed: {}.{} {} -> {}", section, name,
                                    config::ShortValue(old), config::ShortValue(value)));
    }
  return lines;
}

}  // namespace lwm::run
