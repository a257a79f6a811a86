#include "lwm/run/run_folder.h"

#include <system_error>

#include "lwm/base/error.h"
#include "lwm/base/file.h"

namespace lwm::run {
namespace fs = std::filesystem;

std::unique_ptr<FolderLock> PrepareRunFolder(const fs::path& run_folder,
                                             dist::Communicator& world) {
  std::unique_ptr<FolderLock> lock;
  if (world.rank() == 0) {
    std::error_code error;
    fs::create_directories(run_folder, error);
    LWM_REQUIRE(!error, "train.run_folder: cannot create ", run_folder.string(), ": ",
                error.message());
    lock = std::make_unique<FolderLock>(run_folder);
    const fs::path probe = run_folder / ".writable";
    WriteFileAtomically(probe, "");
    fs::remove(probe, error);
  }
  world.Barrier();
  return lock;
}

}  // namespace lwm::run
