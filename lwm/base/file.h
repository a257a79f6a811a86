#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <functional>
#include <span>
#include <string>
#include <string_view>

namespace lwm {

// The whole file as bytes. Throws Error(kNotFound) naming the path and the system's reason
// ("Permission denied"), or that the file is a Git LFS pointer (base/git_lfs.h).
std::string ReadFile(const std::filesystem::path& path);

// The first bytes of a file, fewer when it is shorter. Throws as ReadFile does.
std::string ReadFileStart(const std::filesystem::path& path, size_t bytes);

// "cannot open a/b: Permission denied", replaces the message of a std::filesystem error, which is
// not written for users.
std::string ExplainFileError(const std::filesystem::filesystem_error& error);

// A hidden name beside `path` for a file that is renamed to it when complete. Every call gives
// another one, so writers of the same file never share theirs: two of a process, or two processes
// with the same number on machines that share the folder. `extension` (".mp4") ends the name.
std::filesystem::path TemporaryBeside(const std::filesystem::path& path,
                                      std::string_view extension = "");

// Writes `content` to a temporary file beside `path`, fsyncs it, renames it over `path` and fsyncs
// the folder: after a crash the old or the new content is there, never a part.
// Throws Error(kResourceExhausted) when the disk is full, Error(kInvalidArgument) when the place is
// not writable; the temporary file is removed.
void WriteFileAtomically(const std::filesystem::path& path, std::string_view content);

// A directory that appears whole or not at all: `fill` writes into the temporary folder it is
// given, then every file is fsynced, the folder is renamed to `path` (which must not exist) and the
// parent is fsynced. If `fill` throws, the temporary folder is removed and the error passed on.
void WriteFolderAtomically(const std::filesystem::path& path,
                           const std::function<void(const std::filesystem::path&)>& fill);

// Throws Error(kInvalidArgument) with the reason unless files can be put into `folder` ("" is the
// current one): for results that are written only when the work is done.
void RequireWritableFolder(const std::filesystem::path& folder);

// fsync of one file or folder. Throws Error(kResourceExhausted) with the system's reason.
void SyncPath(const std::filesystem::path& path);

// Renames a finished file or folder over `to` and fsyncs the folder that holds it.
void RenameAndSync(const std::filesystem::path& from, const std::filesystem::path& to);

// Lets two files or folders take each other's name in one step and fsyncs the folders that hold
// them. false, and nothing done, where one is absent or the file system cannot.
bool ExchangeAndSync(const std::filesystem::path& a, const std::filesystem::path& b);

// An unbuffered file being written; errors are thrown, never kept. Not for concurrent use.
class OutputFile {
 public:
  // Creates or truncates. Throws as WriteFileAtomically does.
  explicit OutputFile(const std::filesystem::path& path);
  ~OutputFile();
  OutputFile(const OutputFile&) = delete;
  OutputFile& operator=(const OutputFile&) = delete;

  void Write(const void* data, size_t bytes);
  void Write(std::string_view text) { Write(text.data(), text.size()); }
  uint64_t position() const { return position_; }
  // fsyncs and closes; without it the destructor closes and ignores errors.
  void Finish();

 private:
  std::filesystem::path path_;
  int descriptor_ = -1;
  uint64_t position_ = 0;
};

// A read-only memory map of a whole file (an empty file maps to an empty span). Pages are shared
// with the page cache and may be dropped by the system at any time.
class MappedFile {
 public:
  // Throws Error(kNotFound) as ReadFile does.
  explicit MappedFile(const std::filesystem::path& path);
  ~MappedFile();
  MappedFile(const MappedFile&) = delete;
  MappedFile& operator=(const MappedFile&) = delete;

  std::span<const std::byte> bytes() const { return bytes_; }
  const std::filesystem::path& path() const { return path_; }
  // Tells the system that [offset, offset + size) will not be read again soon.
  void Forget(size_t offset, size_t size) const;

 private:
  std::filesystem::path path_;
  std::span<const std::byte> bytes_;
};

// xxh3-64 of the bytes, as 16 hex digits.
std::string HashHex(std::span<const std::byte> bytes);

// The same of bytes that come in pieces.
class StreamHash {
 public:
  StreamHash();
  ~StreamHash();
  StreamHash(const StreamHash&) = delete;
  StreamHash& operator=(const StreamHash&) = delete;

  void Add(std::span<const std::byte> bytes);
  std::string Hex() const;

 private:
  void* state_;
};

}  // namespace lwm
