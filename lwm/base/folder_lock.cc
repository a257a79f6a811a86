#include "lwm/base/folder_lock.h"

#include <fcntl.h>
#include <sys/file.h>
#include <unistd.h>

#include <cerrno>
#include <cstring>

#include "lwm/base/error.h"

namespace lwm {

FolderLock::FolderLock(const std::filesystem::path& folder) {
  // The file is never removed: a process could then lock a new file of that name while another
  // still holds the lock of the old one.
  const std::filesystem::path name = folder / ".lock";
  file_ = open(name.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0666);
  LWM_REQUIRE(file_ >= 0, "cannot write to ", folder.string(), ": ", std::strerror(errno));
  // Other errors than EWOULDBLOCK come from file systems without locks: go on unprotected.
  if (flock(file_, LOCK_EX | LOCK_NB) == 0 || errno != EWOULDBLOCK) return;
  close(file_);
  throw Error(
      ErrorCode::kResourceExhausted,
      Cat(folder.string(), " is in use: another process writes there; wait for its end, or ",
          "choose another folder"));
}

FolderLock::~FolderLock() { close(file_); }

}  // namespace lwm
