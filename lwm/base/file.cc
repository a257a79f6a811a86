#include "lwm/base/file.h"

#include <fcntl.h>
#include <fmt/format.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>
#include <xxhash.h>

#include <algorithm>
#include <cerrno>
#include <cstring>
#include <fstream>
#include <random>

#include "lwm/base/error.h"
#include "lwm/base/git_lfs.h"

namespace lwm {
namespace fs = std::filesystem;
namespace {

[[noreturn]] void ThrowWriteError(const fs::path& path, const char* what, int error) {
  const bool full = error == ENOSPC || error == EDQUOT || error == EFBIG || error == EIO;
  throw Error(full ? ErrorCode::kResourceExhausted : ErrorCode::kInvalidArgument,
              Cat("cannot ", what, " ", path.string(), ": ", std::strerror(error)));
}

// The file, or its first bytes.
std::string ReadAtMost(const fs::path& path, size_t bytes) {
  errno = 0;
  std::ifstream in(path, std::ios::binary);
  std::error_code ignored;
  if (!in || fs::is_directory(path, ignored))
    throw Error(ErrorCode::kNotFound,
                Cat("cannot read ", path.string(), ": ", std::strerror(errno ? errno : EISDIR)));
  std::string content;
  char piece[1 << 16];
  while (content.size() < bytes) {
    const size_t wanted = std::min(sizeof(piece), bytes - content.size());
    // In pieces, not by the file's size: pipes and /proc files state none.
    in.read(piece, static_cast<std::streamsize>(wanted));
    if (in.gcount() == 0) break;
    content.append(piece, static_cast<size_t>(in.gcount()));
  }
  LWM_REQUIRE_AS(ErrorCode::kNotFound, !in.bad(), "cannot read all of ", path.string(), ": ",
                 std::strerror(errno ? errno : EIO));
  return content;
}

}  // namespace

fs::path TemporaryBeside(const fs::path& path, std::string_view extension) {
  // In the same folder, so that the rename stays inside one file system.
  return path.parent_path() / Cat(".", path.filename().string(), ".tmp.", getpid(), ".",
                                  std::random_device{}(), extension);
}

void RenameAndSync(const fs::path& from, const fs::path& to) {
  if (std::rename(from.c_str(), to.c_str()) != 0) ThrowWriteError(to, "create", errno);
  SyncPath(to.has_parent_path() ? to.parent_path() : fs::path("."));
}

bool ExchangeAndSync(const fs::path& a, const fs::path& b) {
  if (renameat2(AT_FDCWD, a.c_str(), AT_FDCWD, b.c_str(), RENAME_EXCHANGE) != 0) return false;
  SyncPath(a.has_parent_path() ? a.parent_path() : fs::path("."));
  SyncPath(b.has_parent_path() ? b.parent_path() : fs::path("."));
  return true;
}

std::string ReadFileStart(const fs::path& path, size_t bytes) {
  // Only a whole pointer file can be recognised as one.
  std::string start = ReadAtMost(path, std::max(bytes, kGitLfsPointerBytes));
  RefuseGitLfsPointer(start, path.string());
  start.resize(std::min(bytes, start.size()));
  return start;
}

std::string ReadFile(const fs::path& path) {
  std::string content = ReadAtMost(path, SIZE_MAX);
  RefuseGitLfsPointer(content, path.string());
  return content;
}

std::string ExplainFileError(const fs::filesystem_error& error) {
  const std::string name = error.path1().string(), other = error.path2().string();
  return Cat("cannot open ", name.empty() ? "a file" : name, other.empty() ? "" : " or ", other,
             ": ", error.code().message());
}

void WriteFileAtomically(const fs::path& path, std::string_view content) {
  const fs::path temporary = TemporaryBeside(path);
  // Finish fsyncs before the rename: otherwise a crash could leave the new name without content.
  // The fsync of the folder in RenameAndSync makes the rename itself last. A kill before the rename
  // leaves the old file and a hidden temporary one. Maps of the old file stay valid: it loses its
  // name, not its content.
  try {
    OutputFile file(temporary);
    file.Write(content);
    file.Finish();
    RenameAndSync(temporary, path);
  } catch (const Error&) {
    std::error_code ignored;
    fs::remove(temporary, ignored);
    throw;
  }
}

void WriteFolderAtomically(const fs::path& named,
                           const std::function<void(const fs::path&)>& fill) {
  const fs::path path = named.has_filename() ? named : named.parent_path();  // "new/" is "new"
  const fs::path temporary = TemporaryBeside(path);
  std::error_code error;
  fs::create_directories(temporary, error);
  if (error) ThrowWriteError(temporary, "create", error.value());
  try {
    fill(temporary);
    // All content before the rename, for the same reason as in WriteFileAtomically.
    for (const auto& entry : fs::recursive_directory_iterator(temporary)) SyncPath(entry.path());
    SyncPath(temporary);
    RenameAndSync(temporary, path);
  } catch (const std::exception&) {
    fs::remove_all(temporary, error);
    throw;
  }
}

void RequireWritableFolder(const fs::path& named) {
  const fs::path folder = named.empty() ? fs::path(".") : named;
  std::error_code error;
  const bool is_folder = fs::is_directory(folder, error);
  if (!is_folder) ThrowWriteError(folder, "write into", error ? error.value() : ENOTDIR);
  if (access(folder.c_str(), W_OK | X_OK) != 0) ThrowWriteError(folder, "write into", errno);
}

void SyncPath(const fs::path& path) {
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC);
  if (descriptor < 0) ThrowWriteError(path, "open", errno);
  const int result = fsync(descriptor);
  const int error = errno;
  close(descriptor);
  if (result != 0) ThrowWriteError(path, "write", error);
}

OutputFile::OutputFile(const fs::path& path) : path_(path) {
  descriptor_ = open(path.c_str(), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0644);
  if (descriptor_ < 0) ThrowWriteError(path, "write", errno);
}

OutputFile::~OutputFile() {
  if (descriptor_ >= 0) close(descriptor_);
}

void OutputFile::Write(const void* data, size_t bytes) {
  // Starts writing early, so that the disk works while the caller prepares more, not only from the
  // final fsync on.
  constexpr uint64_t kFlush = 1 << 24;
  const char* from = static_cast<const char*>(data);
  while (bytes > 0) {
    const ssize_t written = write(descriptor_, from, std::min<size_t>(bytes, kFlush));
    if (written < 0 && errno == EINTR) continue;
    if (written < 0) ThrowWriteError(path_, "write", errno);
    from += written;
    bytes -= static_cast<size_t>(written);
    const uint64_t flushed = position_ / kFlush * kFlush;
    position_ += static_cast<uint64_t>(written);
    if (position_ - flushed >= kFlush)
      sync_file_range(descriptor_, static_cast<off64_t>(flushed),
                      static_cast<off64_t>(position_ / kFlush * kFlush - flushed),
                      SYNC_FILE_RANGE_WRITE);  // a hint: whether it worked, fsync tells
  }
}

void OutputFile::Finish() {
  // Errors of delayed writes (a full disk, a quota on NFS) may show only here or at close.
  if (fsync(descriptor_) != 0) ThrowWriteError(path_, "write", errno);
  const int result = close(descriptor_);
  descriptor_ = -1;
  if (result != 0) ThrowWriteError(path_, "write", errno);
}

MappedFile::MappedFile(const fs::path& path) : path_(path) {
  // Not waiting: a named pipe would hold us until somebody writes to it.
  const int descriptor = open(path.c_str(), O_RDONLY | O_CLOEXEC | O_NONBLOCK);
  struct stat status {};
  if (descriptor < 0 || fstat(descriptor, &status) != 0 || !S_ISREG(status.st_mode)) {
    std::string reason = std::strerror(errno);
    if (S_ISDIR(status.st_mode))
      reason = std::strerror(EISDIR);
    else if (status.st_mode != 0)
      reason = "a pipe or device; want a file on a disk";
    if (descriptor >= 0) close(descriptor);
    throw Error(ErrorCode::kNotFound, Cat("cannot read ", path.string(), ": ", reason));
  }
  // mmap refuses a length of 0. The map outlives the descriptor.
  const auto size = static_cast<size_t>(status.st_size);
  void* address = size == 0 ? nullptr : mmap(nullptr, size, PROT_READ, MAP_SHARED, descriptor, 0);
  const int error = errno;
  close(descriptor);
  LWM_REQUIRE_AS(ErrorCode::kNotFound, address != MAP_FAILED, "cannot map ", path.string(), ": ",
                 std::strerror(error));
  bytes_ = {static_cast<const std::byte*>(address), size};
  const std::string pointer(reinterpret_cast<const char*>(address),
                            size < kGitLfsPointerBytes ? size : 0);
  if (!IsGitLfsPointer(pointer)) return;
  munmap(address, size);
  RefuseGitLfsPointer(pointer, path.string());
}

MappedFile::~MappedFile() {
  if (!bytes_.empty()) munmap(const_cast<std::byte*>(bytes_.data()), bytes_.size());
}

void MappedFile::Forget(size_t offset, size_t size) const {
  const auto page = static_cast<size_t>(sysconf(_SC_PAGESIZE));
  // Inwards to whole pages: those at the ends hold bytes of the neighbours too.
  const size_t begin = (offset + page - 1) / page * page;
  const size_t end = std::min(offset + size, bytes_.size()) / page * page;
  if (begin < end)
    madvise(const_cast<std::byte*>(bytes_.data()) + begin, end - begin, MADV_DONTNEED);
}

std::string HashHex(std::span<const std::byte> bytes) {
  return fmt::format("{:016x}", XXH3_64bits(bytes.data(), bytes.size()));
}

StreamHash::StreamHash() : state_(XXH3_createState()) {
  if (!state_) throw std::bad_alloc();
  XXH3_64bits_reset(static_cast<XXH3_state_t*>(state_));
}

StreamHash::~StreamHash() { XXH3_freeState(static_cast<XXH3_state_t*>(state_)); }

void StreamHash::Add(std::span<const std::byte> bytes) {
  XXH3_64bits_update(static_cast<XXH3_state_t*>(state_), bytes.data(), bytes.size());
}

std::string StreamHash::Hex() const {
  return fmt::format("{:016x}", XXH3_64bits_digest(static_cast<const XXH3_state_t*>(state_)));
}

}  // namespace lwm
