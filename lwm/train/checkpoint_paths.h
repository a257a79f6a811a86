#pragma once

#include <cstdint>
#include <filesystem>
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

}  // namespace lwm::train
