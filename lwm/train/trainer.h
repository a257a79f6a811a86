#pragma once

#include <filesystem>
#include <functional>
#include <string>

#include "lwm/base/json.h"
#include "lwm/config/train_config.h"
#include "lwm/dist/communicator.h"
#include "lwm/run/training_run.h"

namespace lwm::train {

struct TrainHooks : run::RunHooks {
  // The continuation of train.sample_prompt by the model in `checkpoint`, a model directory. Called
  // on rank 0 only while the others wait; an Error is a warning, the run goes on. Empty (on every
  // rank): no samples.
  std::function<std::string(const std::filesystem::path& checkpoint)> sample;
  // Draws the recipe's [images] with the model in `checkpoint`: writes a grid to `png` and
  // returns measures for eval.jsonl, an object. `last`: the run ends here. Called as `sample` is.
  std::function<Json(const std::filesystem::path& checkpoint, const std::filesystem::path& png,
                     bool last)>
      images;
};

// Trains by the recipe until train.steps, train.max_minutes or hooks.stop, going on from the newest
// valid checkpoint of the run folder if there is one:
//
//   RUN/metrics.jsonl      one object per step (StepMetrics)
//   RUN/eval.jsonl         held-out loss, total and by position (Evaluation); measures of images
//   RUN/loss.png           both
//   RUN/samples.txt        generated text
//   RUN/pictures/          generated images, step_N.png
//   RUN/tokenizer.model    when the recipe trains one
//   RUN/config.json        every setting as used
//   RUN/checkpoints/step_N model directories with the state to go on
//   RUN/model              a link to the newest
//
// For one recipe the losses are the same on every mesh to f32 rounding, and a resumed run on the
// same mesh gives the same bits as one that was never stopped; only max_minutes looks at the clock.
// Collective over `world`. Throws Error(kInvalidArgument) on a recipe that does not fit its files,
// Error(kResourceExhausted) when memory or disk do not suffice.
run::RunResult Train(const config::TrainConfig& config, dist::Communicator& world,
                     const TrainHooks& hooks);

}  // namespace lwm::train
