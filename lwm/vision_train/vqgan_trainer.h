#pragma once

#include "lwm/config/vqgan_train_config.h"
#include "lwm/dist/communicator.h"
#include "lwm/run/training_run.h"

namespace lwm::vision_train {

// Trains a VQGAN by the recipe until train.steps, train.max_minutes or hooks.stop, going on from
// the newest valid checkpoint of the run folder if there is one:
//
//   RUN/metrics.jsonl      one object per step
//   RUN/eval.jsonl         held-out PSNR, SSIM, gain over box averages, codes used, perplexity
//   RUN/loss.png, psnr.png
//   RUN/grids/step_N.png   held-out images over their reconstructions
//   RUN/config.json        every setting as used
//   RUN/checkpoints/step_N VQGAN directories with the state to go on
//   RUN/model              a link to the newest
//
// Ranks share every batch; for one recipe the losses are the same on any number of them to f32
// rounding, and a resumed run on as many ranks gives the same bits as one that was never stopped.
// Collective. Throws Error(kInvalidArgument) on a recipe that does not fit its files or more ranks
// than images in a batch.
run::RunResult TrainVqgan(const config::VqganTrainConfig& config, dist::Communicator& world,
                          const run::RunHooks& hooks);

}  // namespace lwm::vision_train
