#pragma once

#include <filesystem>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/io/mapped_source.h"

namespace lwm::io {

// Key in the metadata of a safetensors file with quantised weights; its value is a GGUF block type,
// "Q8_0". Every U8 tensor of such a file holds rows of blocks, [..., bytes], and is read as the f32
// weights, [..., bytes / block bytes * 32].
inline constexpr const char* kSafetensorsBlocks = "lwm.blocks";

// The tensors of the bytes of one file. Throws Error(kCorruptData) as ParseSafetensors does, and
// when rows are no whole blocks.
std::vector<StoredTensor> ParseSafetensorsTensors(std::span<const std::byte> file,
                                                  const std::string& where);

// The tensors of one .safetensors file, or of all shards that a model.safetensors.index.json names.
class SafetensorsSource final : public MappedSource {
 public:
  explicit SafetensorsSource(const std::filesystem::path& path);

  std::string_view format() const override { return "safetensors"; }
};

}  // namespace lwm::io
