#pragma once

#include <filesystem>

namespace lwm {

// Keeps other processes that ask for the same folder's lock out, with a file `.lock` in it that
// stays. The system lets go of it when the process ends, however it ends. Where the file system
// knows no locks, nobody is kept out.
class FolderLock {
 public:
  // Throws Error(kResourceExhausted) when another one holds it, and Error(kInvalidArgument) when
  // the folder cannot be written to.
  explicit FolderLock(const std::filesystem::path& folder);
  ~FolderLock();
  FolderLock(const FolderLock&) = delete;
  FolderLock& operator=(const FolderLock&) = delete;

 private:
  int file_;
};

}  // namespace lwm
