#pragma once

#include <cstdint>

#include "lwm/base/process.h"
#include "progress.h"

namespace lwm::app {

// Prints progress of work on frames to stderr, and its speed at the end.
class FrameProgress {
 public:
  // `what` in the past tense, "encoded".
  explicit FrameProgress(const char* what) : what_(what) {}

  // `frames` more; `share` of all work is done now, in [0, 1], 0 = not known.
  void Add(int64_t frames, double share);
  // Also prints the peak memory and how busy the threads were.
  void Finish(int threads);

 private:
  double Seconds() const { return MonotonicSeconds() - start_; }
  double Rate() const;

  const char* what_;
  int64_t done_ = 0;
  double start_ = MonotonicSeconds(), start_cpu_ = ProcessSeconds();
  Progress progress_;
};

}  // namespace lwm::app
