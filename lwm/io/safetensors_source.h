#pragma once

#include <filesystem>
#include <memory>
#include <vector>

#include "lwm/io/safetensors.h"
#include "lwm/io/tensor_source.h"

namespace lwm::io {

// The files of a sharded checkpoint, from its index ("weight_map": tensor name -> file name).
struct ShardIndex {
  std::vector<std::filesystem::path> files;             // each once, sorted by name
  std::vector<std::pair<std::string, size_t>> tensors;  // name, position in `files`
};

// Reads and checks `index_file`: file names are plain names in its folder, and every file exists.
// Throws Error(kCorruptData), or Error(kNotFound) naming the missing shard.
ShardIndex ReadShardIndex(const std::filesystem::path& index_file);

// The tensors of one safetensors file, or of all shards that an index names.
class SafetensorsSource final : public TensorSource {
 public:
  // `path` is a .safetensors file or a model.safetensors.index.json.
  explicit SafetensorsSource(const std::filesystem::path& path);

  std::string_view format() const override { return "safetensors"; }
  void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const override;
  std::span<const std::byte> View(size_t index) const override;
  void Forget(size_t index) const override;

 private:
  std::vector<std::unique_ptr<SafetensorsFile>> files_;
  std::vector<const SafetensorsFile*> file_of_;  // of each tensor
};

}  // namespace lwm::io
