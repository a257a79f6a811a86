#pragma once

#include <cstdint>
#include <string>

#include "lwm/base/error.h"
#include "lwm/config/fields.h"

namespace lwm::config {

// Fields shared by the recipes of all trainings: their sections [train] and [optimizer] add fields
// and defaults of their own.

struct LoopSection {
  std::string run_folder;
  int64_t steps = 0;
  int64_t seed = 42;
  Dtype dtype = Dtype::kBF16;
  int64_t log_every = 1;
  int64_t eval_every = 0;
  int64_t checkpoint_every = 0;
  int64_t checkpoint_keep = 2;
  double max_minutes = 0;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("run_folder", run_folder, Limits(), "where metrics, plots, images and checkpoints go");
    field("steps", steps, AtLeast(0), "optimizer steps in all");
    field("seed", seed, AtLeast(0), "of weights, order and all that is drawn");
    field("dtype", dtype, OneOf({"bf16", "f32"}),
          "of matmuls and convolutions; masters and moments are f32");
    field("log_every", log_every, AtLeast(1), "steps between progress lines");
    field("eval_every", eval_every, AtLeast(0),
          "steps between held-out evaluations; 0: at the end only");
    field("checkpoint_every", checkpoint_every, AtLeast(0),
          "steps between checkpoints; 0: at the end only");
    field("checkpoint_keep", checkpoint_keep, AtLeast(1), "newest checkpoints that stay");
    field("max_minutes", max_minutes, AtLeast(0),
          "stop with a checkpoint after this long; 0: never");
  }

  // Throws Error(kInvalidArgument) naming a key that must be given.
  void Validate() const {
    LWM_REQUIRE(!run_folder.empty(), "train.run_folder is missing: where should results go?");
    LWM_REQUIRE(steps > 0, "train.steps is missing: how many optimizer steps?");
  }
};

struct AdamWSection {
  double lr = 3e-4;
  double min_lr = 0;
  std::string schedule = "cosine";
  int64_t warmup_steps = 0;
  double beta1 = 0.9;
  double beta2 = 0.95;
  double eps = 1e-8;
  double weight_decay = 0.1;
  double clip_norm = 1.0;

  template <class Visitor>
  void ForEachField(Visitor&& field) {
    field("lr", lr, AtLeast(0), "learning rate after warm-up");
    field("min_lr", min_lr, AtLeast(0), "learning rate at the end of the cosine");
    field("schedule", schedule, OneOf({"constant", "cosine"}), "after warm-up");
    field("warmup_steps", warmup_steps, AtLeast(0), "steps until lr is reached");
    field("beta1", beta1, Between(0, 0.999999), "decay of the first moment");
    field("beta2", beta2, Between(0, 0.999999), "decay of the second moment");
    field("eps", eps, AtLeast(1e-30), "added to the root of the second moment");
    field("weight_decay", weight_decay, AtLeast(0), "decoupled, times the learning rate");
    field("clip_norm", clip_norm, AtLeast(0), "largest global gradient norm; 0: no clipping");
  }

  // Throws Error(kInvalidArgument) naming the keys that contradict.
  void Validate() const {
    LWM_REQUIRE(min_lr <= lr, "optimizer.min_lr = ", min_lr, " is above optimizer.lr = ", lr);
  }
};

}  // namespace lwm::config
