#pragma once

#include <cstddef>
#include <filesystem>
#include <functional>
#include <memory>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/io/gguf_blocks.h"
#include "lwm/io/strided.h"
#include "lwm/io/tensor_source.h"

namespace lwm::io {

// A tensor inside a file: its description and where its elements lie.
struct StoredTensor {
  std::string name;
  StridedTensor data;
  // Set: data.storage holds all of the tensor in such blocks, and data.dtype is f32.
  std::optional<GgufTypeInfo> blocks = {};
};

// A tensor whose bytes are its elements in C order.
StoredTensor ContiguousTensor(TensorInfo info, std::span<const std::byte> bytes);

// Tensors that lie in memory-mapped files: one, or all files of a checkpoint.
class MappedSource : public TensorSource {
 public:
  std::string_view Encoding(size_t index) const override;
  uint64_t StoredBytes(size_t index) const override;
  // Blocks are dequantised; a range of them must be whole blocks.
  void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const override;
  std::span<const std::byte> View(size_t index) const override;
  void Forget(size_t index) const override;

 protected:
  // The checked tensors of one file. Spans point into `file`, or to memory that the source owns.
  using Parse = std::function<std::vector<StoredTensor>(std::span<const std::byte> file,
                                                        const std::string& where)>;

  using TensorSource::TensorSource;
  // Maps and parses the file, or the shards of the index. Throws Error(kCorruptData) when a tensor
  // appears twice, or is not in the shard that the index names for it.
  void Open(const std::filesystem::path& path, const Parse& parse);
  // The same of the files in this order. Throws Error(kCorruptData) when a tensor appears twice.
  void OpenFiles(const std::vector<std::filesystem::path>& files, const Parse& parse);

 private:
  struct Entry {
    StoredTensor tensor;
    size_t file;
  };

  void ForgetBytes(const Entry& entry, std::span<const std::byte> bytes) const;

  std::vector<std::unique_ptr<MappedFile>> files_;
  std::vector<Entry> entries_;
};

}  // namespace lwm::io
