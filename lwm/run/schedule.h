#pragma once

#include <cstdint>

#include "lwm/config/train_config.h"

namespace lwm::run {

// Learning rate by optimizer step: linear from init_lr to lr over the warm-up, then lr (constant)
// or a cosine from lr to min_lr over decay_steps - warmup_steps, then min_lr.
struct Schedule {
  bool cosine = true;
  double init_lr = 0, lr = 0, min_lr = 0;
  int64_t warmup_steps = 0;
  int64_t decay_steps = 0;  // counts the warm-up
};

// From 0, and the cosine over all of the run's steps.
Schedule MakeSchedule(const config::AdamWSection& optimizer, int64_t steps);
// From the section's init_lr; decay_steps = 0 means all of the run's steps.
Schedule MakeSchedule(const config::OptimizerSection& optimizer, int64_t steps);

// The rate of update `step`, counted from 0: rate(0) = init_lr when there is a warm-up.
double LearningRate(const Schedule& schedule, int64_t step);

}  // namespace lwm::run
