#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <span>
#include <string>
#include <unordered_map>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/io/atomic_output.h"
#include "lwm/io/tensor_info.h"

namespace lwm::io {

// A safetensors header, checked: it fits the file, every dtype is known, dtype x shape equals the
// byte range, and the ranges cover the data exactly (no overlap, no gap, nothing after).
struct SafetensorsLayout {
  std::vector<TensorInfo> infos;  // in file order
  std::vector<uint64_t> offsets;  // of each tensor's first byte from the start of the file
  std::map<std::string, std::string> metadata;
};

// Parses the bytes of a whole file; `where` names it in errors. Headers above 16 MiB are refused.
// Throws Error(kCorruptData) with what is wrong and where.
SafetensorsLayout ParseSafetensors(std::span<const std::byte> file, const std::string& where);

// One memory-mapped file. Safe to read from many threads.
class SafetensorsFile {
 public:
  // Throws Error(kNotFound) if it cannot be read, Error(kCorruptData) as ParseSafetensors does.
  explicit SafetensorsFile(const std::filesystem::path& path);

  const std::filesystem::path& path() const { return file_.path(); }
  const std::vector<TensorInfo>& infos() const { return layout_.infos; }
  const std::map<std::string, std::string>& metadata() const { return layout_.metadata; }
  bool contains(const std::string& name) const { return index_.contains(name); }
  // Throws Error(kNotFound) naming the tensor and the file.
  const TensorInfo& info(const std::string& name) const { return layout_.infos[IndexOf(name)]; }
  // The mapped bytes; may be unaligned. Valid as long as this object.
  std::span<const std::byte> bytes(const std::string& name) const;
  // Drops the tensor's pages from this process's resident memory.
  void Forget(const std::string& name) const;

 private:
  size_t IndexOf(const std::string& name) const;

  MappedFile file_;
  SafetensorsLayout layout_;
  std::unordered_map<std::string, size_t> index_;
};

// Streams a file to disk: all infos first (their order is the file's; wider dtypes first keeps
// every tensor aligned), then each tensor's bytes in that order, whole or in pieces. Never holds a
// tensor. The header is padded so that the data starts at a multiple of 8.
class SafetensorsWriter {
 public:
  // Throws Error(kInvalidArgument) on a repeated name or an impossible shape; file errors as
  // OutputFile throws them.
  SafetensorsWriter(const std::filesystem::path& path, std::vector<TensorInfo> infos,
                    const std::map<std::string, std::string>& metadata = {{"format", "pt"}});

  // Appends to the tensor being written, which must be `name`. Empty tensors may be skipped.
  void Write(const std::string& name, std::span<const std::byte> bytes);
  // Checks that every tensor is complete, fsyncs, closes and renames.
  void Finish();

 private:
  void SkipEmpty();

  std::vector<TensorInfo> infos_;
  AtomicOutput output_;
  size_t current_ = 0;
  uint64_t remaining_ = 0;  // bytes of infos_[current_] not written yet
};

}  // namespace lwm::io
