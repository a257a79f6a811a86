#include "lwm/run/checkpoint_paths.h"

#include <algorithm>
#include <charconv>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/run/manifest.h"

namespace lwm::run {
namespace fs = std::filesystem;
namespace {

// By its manifest and sizes: reading old checkpoints again at every save would cost as much.
bool LooksWhole(const fs::path& folder) {
  try {
    return !FindWrongSize(folder, ReadManifest(folder));
  } catch (const Error&) {
    return false;
  }
}

}  // namespace

fs::path CheckpointsFolder(const fs::path& run_folder) { return run_folder / "checkpoints"; }

std::vector<int64_t> CheckpointSteps(const fs::path& run_folder) {
  std::vector<int64_t> steps;
  std::error_code ignored;
  for (const auto& entry : fs::directory_iterator(CheckpointsFolder(run_folder), ignored)) {
    const std::string name = entry.path().filename().string();
    int64_t step = 0;
    if (!name.starts_with(kStepPrefix)) continue;
    const char* digits = name.data() + kStepPrefix.size();
    const auto [end, error] = std::from_chars(digits, name.data() + name.size(), step);
    if (error == std::errc() && end == name.data() + name.size()) steps.push_back(step);
  }
  std::sort(steps.begin(), steps.end());
  return steps;
}

void RemoveLeftovers(const fs::path& run_folder) {
  std::error_code ignored;
  std::vector<fs::path> leftovers;
  for (const auto& entry : fs::directory_iterator(CheckpointsFolder(run_folder), ignored)) {
    const std::string name = entry.path().filename().string();
    if (name.starts_with(kWritingPrefix) || name.starts_with(kDeletedPrefix))
      leftovers.push_back(entry.path());
  }
  // After the walk: whether an iterator still gives entries that are removed is unspecified.
  for (const fs::path& path : leftovers) fs::remove_all(path, ignored);
}

void PublishCheckpoint(const fs::path& writing, const fs::path& checkpoint) {
  const fs::path replaced =
      checkpoint.parent_path() / Cat(kDeletedPrefix, checkpoint.filename().string());
  if (fs::exists(checkpoint)) {
    // rename() does not replace a folder that holds files. Where names can be exchanged, one of the
    // two is at step_N at any moment. Elsewhere the old one moves away first, and a kill between
    // the two renames leaves no step_N: a resumed run then takes the step before it.
    if (ExchangeAndSync(writing, checkpoint)) return RenameAndSync(writing, replaced);
    RenameAndSync(checkpoint, replaced);
  }
  RenameAndSync(writing, checkpoint);
}

std::string KeepNewest(const fs::path& run_folder, int64_t step, int64_t keep) {
  const std::string problem =
      LinkModel(run_folder, CheckpointsFolder(run_folder) / Cat(kStepPrefix, step));
  std::error_code ignored;
  // Not `step` when the link could not be made: its target stays, or RUN/model would dangle.
  const fs::path linked = fs::read_symlink(run_folder / "model", ignored).filename();
  std::vector<int64_t> steps = CheckpointSteps(run_folder);
  std::erase_if(steps, [&](int64_t other) { return other > step; });
  const fs::path all = CheckpointsFolder(run_folder);
  int64_t left = std::max<int64_t>(1, keep);
  for (auto old = steps.rbegin(); old != steps.rend(); ++old) {
    const fs::path folder = all / Cat(kStepPrefix, *old);
    // Renamed before RemoveLeftovers empties it: a kill in between leaves a .deleted_ folder, never
    // a step_N without some of its files.
    if (left == 0) {
      if (folder.filename() == linked) continue;
      fs::rename(folder, all / Cat(kDeletedPrefix, kStepPrefix, *old), ignored);
    } else if (LooksWhole(folder)) {
      --left;
    }
  }
  RemoveLeftovers(run_folder);
  return problem;
}

std::string LinkModel(const fs::path& run_folder, const fs::path& checkpoint) {
  // Made under another name and renamed: readers of RUN/model find the old or the new target, never
  // no link. Without fsync: after a crash FindLatestValid links again.
  const fs::path link = run_folder / ".model.tmp";
  std::error_code error;
  fs::remove(link, error);
  const fs::path target = fs::relative(checkpoint, run_folder, error);
  if (!error) fs::create_directory_symlink(target, link, error);
  if (!error) fs::rename(link, run_folder / "model", error);
  return error ? Cat("cannot link ", (run_folder / "model").string(), ": ", error.message()) : "";
}

}  // namespace lwm::run
