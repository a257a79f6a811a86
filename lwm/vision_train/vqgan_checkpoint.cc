#include "lwm/vision_train/vqgan_checkpoint.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <optional>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/checkpoint/tensor_file.h"
#include "lwm/checkpoint/vqgan_import.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/run/manifest.h"
#include "lwm/run/shared_outcome.h"

namespace lwm::vision_train {
namespace fs = std::filesystem;
namespace {

constexpr char kStateFile[] = "training/state.safetensors";
constexpr char kTrainerFile[] = "training/trainer.json";

void Write(const fs::path& folder, int64_t step, const Json& settings, Learner& learner) {
  const vision::VqganWeights averaged = learner.Averaged();
  checkpoint::SaveVqgan(learner.sizes(), averaged, folder);
  fs::create_directory(folder / "training");
  const auto state = learner.State();
  checkpoint::SaveTensors(folder / kStateFile, {state.begin(), state.end()});
  WriteFileAtomically(folder / kTrainerFile,
                      Json{{"format", 1}, {"step", step}, {"settings", settings}}.dump(1) + "\n");
  // Of all files there are; the manifest itself comes after them.
  Json files = Json::object();
  for (const auto& entry : fs::recursive_directory_iterator(folder))
    if (entry.is_regular_file())
      files[fs::relative(entry.path(), folder).string()] = run::ManifestEntry(entry.path());
  WriteFileAtomically(folder / run::kManifestName, run::ManifestText(files));
}

}  // namespace

fs::path SaveVqganCheckpoint(dist::Communicator& world, const fs::path& run_folder, int64_t step,
                             int64_t keep, const Json& settings, Learner& learner,
                             const std::function<void(const std::string&)>& warn) {
  const std::string name = Cat(run::kStepPrefix, step);
  const fs::path folder = run::CheckpointsFolder(run_folder);
  const fs::path final_folder = folder / name;
  run::SharedOutcome outcome;
  if (world.rank() == 0) {
    // The protocol of train/checkpoint_save.cc. All ranks hold all of the state, so rank 0 writes
    // alone.
    const fs::path writing = folder / Cat(run::kWritingPrefix, name);
    outcome.Try([&] {
      fs::create_directories(folder);
      run::RemoveLeftovers(run_folder);
      fs::create_directory(writing);
      Write(writing, step, settings, learner);
      for (const auto& entry : fs::recursive_directory_iterator(writing)) SyncPath(entry.path());
      SyncPath(writing);
      run::PublishCheckpoint(writing, final_folder);
    });
    std::error_code ignored;
    if (outcome.failed()) fs::remove_all(writing, ignored);
  }
  const std::optional<Error> error = outcome.Agree(world);
  if (error) throw Error(error->code(), Cat("checkpoint of step ", step, ": ", error->what()));
  if (world.rank() > 0) return final_folder;
  const std::string problem = run::KeepNewest(run_folder, step, keep);
  if (!problem.empty()) warn(problem);
  return final_folder;
}

LoadedVqganCheckpoint LoadVqganCheckpoint(const fs::path& folder, Learner& learner) {
  const fs::path trainer_file = folder / kTrainerFile, state_file = folder / kStateFile;
  const Json trainer = ReadJsonFile(trainer_file);
  LoadedVqganCheckpoint loaded;
  loaded.step = JsonGet<int64_t>(trainer, "step", trainer_file.string());
  loaded.settings = JsonGet<Json>(trainer, "settings", trainer_file.string());
  learner.LoadState(checkpoint::LoadTensors(state_file), loaded.step, state_file.string());
  return loaded;
}

}  // namespace lwm::vision_train
