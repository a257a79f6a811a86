#pragma once

#include <cstdint>
#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

namespace lwm::train {

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
// RUN/model leads to `checkpoint` from now on. Returns why not, "" on success: the link is a
// convenience, never worth a run.
std::string LinkModel(const std::filesystem::path& run_folder,
                      const std::filesystem::path& checkpoint);
// After the checkpoint of `step` was published: links it, and only then, so that RUN/model leads to
// a whole one at any moment, removes steps before the `keep` newest (at least 1) up to it. Folders
// whose manifest or file sizes are wrong do not count among the kept; steps beyond are left alone:
// they are damaged, or of a run that went another way. Returns what LinkModel does.
std::string KeepNewest(const std::filesystem::path& run_folder, int64_t step, int64_t keep);

}  // namespace lwm::train
