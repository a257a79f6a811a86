#pragma once

#include <filesystem>
#include <memory>

#include "lwm/base/folder_lock.h"
#include "lwm/dist/communicator.h"

namespace lwm::run {

// Makes the run folder; collective, and it exists for all ranks afterwards. On rank 0 returns the
// lock that keeps other runs out of it; else nullptr. Throws Error(kInvalidArgument) when it cannot
// be made or written to, and kResourceExhausted when another run writes there.
std::unique_ptr<FolderLock> PrepareRunFolder(const std::filesystem::path& run_folder,
                                             dist::Communicator& world);

}  // namespace lwm::run
