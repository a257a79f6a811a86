#pragma once

#include <filesystem>
#include <memory>
#include <span>
#include <string>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/io/strided.h"
#include "lwm/io/tensor_source.h"

namespace lwm::io {

// A tensor inside a file: its description and where its elements lie.
struct StoredTensor {
  std::string name;
  StridedTensor data;
};

// The tensors of a state dict written by torch.save (the zip form, PyTorch >= 1.6): an archive of
// data.pkl and one stored entry per storage. The pickle is read as data (io/pickle.h): only
// tensors, parameters and ordered dicts may occur. Nested dicts join names with '.'; what is not a
// tensor is skipped. The spans point into `file`. Throws Error(kCorruptData).
std::vector<StoredTensor> ParseTorchFile(std::span<const std::byte> file, const std::string& where);

// One pytorch_model.bin, or all shards that a pytorch_model.bin.index.json names.
class TorchSource final : public TensorSource {
 public:
  explicit TorchSource(const std::filesystem::path& path);

  std::string_view format() const override { return "torch"; }
  void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const override;
  std::span<const std::byte> View(size_t index) const override;
  void Forget(size_t index) const override;

 private:
  struct Entry {
    StridedTensor data;
    const MappedFile* file;
  };
  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Entry> entries_;
};

}  // namespace lwm::io
