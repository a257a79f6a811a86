#include "lwm/run/checkpoint_find.h"

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/run/checkpoint_paths.h"
#include "lwm/run/manifest.h"
#include "lwm/run/shared_outcome.h"

namespace lwm::run {
namespace fs = std::filesystem;
namespace {

// The problem in this rank's share of the files.
std::string DamageInShare(const fs::path& folder, int rank, int ranks) {
  // A damaged checkpoint is an expected outcome here.
  try {
    return FindDamagedFile(folder, ReadManifest(folder), rank, ranks).value_or("");
  } catch (const Error& error) {
    return error.what();
  }
}

}  // namespace

std::optional<std::string> FindDamage(const fs::path& folder) {
  const std::string damage = DamageInShare(folder, 0, 1);
  return damage.empty() ? std::nullopt : std::optional(damage);
}

std::optional<fs::path> FindLatestValid(dist::Communicator& world, const fs::path& run_folder,
                                        const std::function<void(const std::string&)>& warn) {
  // Rank 0 looks; all ranks go through its list.
  Json steps = Json::array();
  if (world.rank() == 0) {
    RemoveLeftovers(run_folder);
    steps = CheckpointSteps(run_folder);
  }
  steps = ParseJson(GatherTexts(world, steps.dump())[0], "checkpoint list");
  // Newest first. Each rank hashes every P-th file of a folder; a problem that one rank finds
  // counts for all, so they go on to the next folder together.
  for (auto step = steps.rbegin(); step != steps.rend(); ++step) {
    const fs::path folder = CheckpointsFolder(run_folder) / Cat(kStepPrefix, step->get<int64_t>());
    const auto problems = GatherTexts(world, DamageInShare(folder, world.rank(), world.size()));
    const auto problem = std::find_if(problems.begin(), problems.end(),
                                      [](const std::string& text) { return !text.empty(); });
    if (problem != problems.end()) {
      if (world.rank() == 0)
        warn(Cat("checkpoint ", folder.string(), " is damaged (", *problem, ")"));
      continue;
    }
    // A save may have been killed between its rename and its link.
    const std::string unlinked = world.rank() == 0 ? LinkModel(run_folder, folder) : "";
    if (!unlinked.empty()) warn(unlinked);
    return folder;
  }
  LWM_REQUIRE_AS(ErrorCode::kCorruptData, steps.empty(), "no checkpoint in ",
                 CheckpointsFolder(run_folder).string(), " is whole (", steps.size(),
                 " damaged): restore one, or remove them to begin anew");
  return std::nullopt;
}

}  // namespace lwm::run
