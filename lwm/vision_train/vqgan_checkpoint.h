#pragma once

#include <cstdint>
#include <filesystem>
#include <functional>
#include <string>

#include "lwm/base/json.h"
#include "lwm/dist/communicator.h"
#include "lwm/vision_train/learner.h"

namespace lwm::vision_train {

// RUN/checkpoints/step_N, a VQGAN directory that also holds the state of training:
//   config.json, diffusion_pytorch_model.safetensors   averaged weights, f32: what `lwm vqgan
//                                                      encode --model` reads
//   training/state.safetensors                         Learner::State
//   training/trainer.json                              step and the recipe's settings
//   MANIFEST.json                                      size and xxh3 of every file
// run::FindLatestValid finds the newest whole one.

// Rank 0 writes into checkpoints/.writing_step_N, fsyncs and renames, then points RUN/model there
// (`warn` is called when it cannot) and deletes older checkpoints beyond the newest `keep`. A
// failure (disk full: kResourceExhausted) is thrown on every rank and leaves older checkpoints as
// they were. Returns the folder. Collective.
std::filesystem::path SaveVqganCheckpoint(dist::Communicator& world,
                                          const std::filesystem::path& run_folder, int64_t step,
                                          int64_t keep, const Json& settings, Learner& learner,
                                          const std::function<void(const std::string&)>& warn);

// Fills the learner bit for bit; returns the step and the settings. Throws Error(kCorruptData)
// naming the file.
struct LoadedVqganCheckpoint {
  int64_t step = 0;
  Json settings;
};
LoadedVqganCheckpoint LoadVqganCheckpoint(const std::filesystem::path& folder, Learner& learner);

}  // namespace lwm::vision_train
