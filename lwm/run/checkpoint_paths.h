#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lwm::run {

// Names inside RUN/checkpoints. A folder is renamed to kDeletedPrefix... before it is emptied, so
// that step_N is whole at any moment.
inline constexpr std::string_view kStepPrefix = "step_";
inline constexpr std::string_view kWritingPrefix = ".writing_";
inline constexpr std::string_view kDeletedPrefix = ".deleted_";

std::filesystem::path CheckpointsFolder(const std::filesystem::path& run_folder);
// Steps of the step_N folders, rising; nothing when there is no such folder.
std::vector<int64_t> CheckpointSteps(const std::filesystem::path& run_folder);
// Removes half-written and half-deleted folders.
void RemoveLeftovers(const std::filesystem::path& run_folder);

// The finished folder `writing` becomes `checkpoint`; one of the same step, left from another run,
// goes first. Throws as RenameAndSync does.
void PublishCheckpoint(const std::filesystem::path& writing,
                       const std::filesystem::path& checkpoint);
// Points RUN/model to `checkpoint`. Returns the reason when it could not, "" on success: the link
// is a convenience, its failure must not end the run.
std::string LinkModel(const std::filesystem::path& run_folder,
                      const std::filesystem::path& checkpoint);
// After the checkpoint of `step` was published: links it, then removes steps before the `keep`
// newest (at least 1) up to it; in this order RUN/model never points to a removed one. Folders
// whose manifest or file sizes are wrong do not count among the kept. Steps beyond `step` are left
// alone: they are damaged, or of a run that went another way. Returns what LinkModel returns.
std::string KeepNewest(const std::filesystem::path& run_folder, int64_t step, int64_t keep);

}  // namespace lwm::run
