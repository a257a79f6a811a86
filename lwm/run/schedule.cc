#include "lwm/run/schedule.h"

#include <cmath>
#include <numbers>

namespace lwm::run {

Schedule MakeSchedule(const config::AdamWSection& optimizer, int64_t steps) {
  return {.cosine = optimizer.schedule == "cosine",
          .init_lr = 0,
          .lr = optimizer.lr,
          .min_lr = optimizer.min_lr,
          .warmup_steps = optimizer.warmup_steps,
          .decay_steps = steps};
}

Schedule MakeSchedule(const config::OptimizerSection& optimizer, int64_t steps) {
  const config::AdamWSection& common = optimizer;
  Schedule schedule = MakeSchedule(common, steps);
  schedule.init_lr = optimizer.init_lr;
  if (optimizer.decay_steps > 0) schedule.decay_steps = optimizer.decay_steps;
  return schedule;
}

double LearningRate(const Schedule& schedule, int64_t step) {
  if (step < schedule.warmup_steps) {
    const double part = static_cast<double>(step) / static_cast<double>(schedule.warmup_steps);
    return schedule.init_lr + (schedule.lr - schedule.init_lr) * part;
  }
  if (!schedule.cosine) return schedule.lr;
  if (step >= schedule.decay_steps) return schedule.min_lr;
  // Half a cosine: SGDR with a single period (Loshchilov & Hutter 2017).
  const double part = static_cast<double>(step - schedule.warmup_steps) /
                      static_cast<double>(schedule.decay_steps - schedule.warmup_steps);
  const double weight = 0.5 * (1 + std::cos(std::numbers::pi * part));
  return schedule.min_lr + (schedule.lr - schedule.min_lr) * weight;
}

}  // namespace lwm::run
