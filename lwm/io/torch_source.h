#pragma once

#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/mapped_source.h"

namespace lwm::io {

// The tensors of a state dict written by torch.save (the zip form, PyTorch >= 1.6): an archive of
// data.pkl and one stored entry per storage. The pickle is read as data (io/pickle.h): only
// tensors, parameters and ordered dicts may occur. Nested dicts join names with '.'; other values
// are skipped. The pickle is checked against its checksum, storages are not: that would cost
// a second per gigabyte or two, where everything else only looks at headers. The spans point into
// `file`. Throws Error(kCorruptData).
std::vector<StoredTensor> ParseTorchFile(std::span<const std::byte> file, const std::string& where);

// One pytorch_model.bin, or all shards that a pytorch_model.bin.index.json names.
class TorchSource final : public MappedSource {
 public:
  explicit TorchSource(const std::filesystem::path& path);

  std::string_view format() const override { return "torch"; }
};

}  // namespace lwm::io
