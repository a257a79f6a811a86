#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <unordered_map>
#include <vector>

#include "lwm/io/tensor_info.h"

namespace lwm::io {

// Named tensors of a file or folder, whatever its format: opened without reading the data, then
// read tensor by tensor or in pieces. Nothing of the data stays in memory. Safe to read from many
// threads.
class TensorSource {
 public:
  virtual ~TensorSource() = default;

  // "safetensors", "torch", "lwm-jax", "gguf", "llama2c", "vqgan-pickle".
  virtual std::string_view format() const = 0;
  // How tensor `index` is stored when that is not its dtype ("Q8_0"); it is read as `dtype`.
  virtual std::string_view Encoding(size_t index) const {
    return SafetensorsName(infos_[index].dtype);
  }

  // Bytes that tensor `index` takes in its file; other than TensorBytes when it is quantised.
  virtual uint64_t StoredBytes(size_t index) const { return TensorBytes(infos_[index]); }

  const std::vector<TensorInfo>& infos() const { return infos_; }
  bool contains(const std::string& name) const { return index_.contains(name); }
  // Throws Error(kNotFound) naming the tensor and the source.
  size_t IndexOf(const std::string& name) const;
  const TensorInfo& info(const std::string& name) const { return infos_[IndexOf(name)]; }
  // The path, for messages.
  const std::string& where() const { return where_; }

  // Bytes [offset, offset + destination.size()) of the tensor's C-order data in its dtype; both
  // must be multiples of the element size. Throws Error(kCorruptData) when the stored bytes cannot
  // be decoded.
  virtual void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const = 0;

  // The tensor's bytes in the mapped file, if they are stored as ReadRange gives them and aligned
  // to their element; else empty. Valid as long as this object. Reading them makes the file's pages
  // resident; Forget gives them back.
  virtual std::span<const std::byte> View(size_t index) const;
  virtual void Forget(size_t index) const;

  // The whole tensor; destination.size() must be TensorBytes(info).
  void Read(const std::string& name, std::span<std::byte> destination) const;

 protected:
  explicit TensorSource(const std::filesystem::path& path) : where_(path.string()) {}
  // Throws Error(kCorruptData) on a repeated name.
  void SetInfos(std::vector<TensorInfo> infos);
  // `bytes` if it can serve as the View of a tensor: not empty, aligned.
  std::span<const std::byte> Aligned(size_t index, std::span<const std::byte> bytes) const;
  // LWM_CHECKs a ReadRange call.
  void CheckRange(size_t index, uint64_t offset, size_t bytes) const;

 private:
  std::string where_;
  std::vector<TensorInfo> infos_;
  std::unordered_map<std::string, size_t> index_;
};

}  // namespace lwm::io
