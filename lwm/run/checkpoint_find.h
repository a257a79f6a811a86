#pragma once

#include <filesystem>
#include <functional>
#include <optional>
#include <string>

#include "lwm/dist/communicator.h"

namespace lwm::run {

// The newest checkpoint whose manifest, sizes and hashes hold; nothing if there is none at all. For
// each newer one that is damaged, `warn` is called on rank 0 with one line that names it and the
// reason; throws Error(kCorruptData) when all are, rather than let a run begin anew over them.
// Repairs interrupted saves: removes their unfinished folders and points RUN/model to the
// checkpoint found. Ranks share the hashing. Collective over `world`.
std::optional<std::filesystem::path> FindLatestValid(
    dist::Communicator& world, const std::filesystem::path& run_folder,
    const std::function<void(const std::string&)>& warn);

// The problem with a checkpoint directory in one line, or nothing if it is complete and undamaged.
// This process alone reads and hashes every file.
std::optional<std::string> FindDamage(const std::filesystem::path& folder);

}  // namespace lwm::run
