#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <map>
#include <optional>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/io/gguf_blocks.h"
#include "lwm/io/mapped_source.h"

namespace lwm::io {

// The key-value part of a GGUF file. Values are decoded when asked for; they point into the file.
// Getters give nothing when the key is absent and throw Error(kCorruptData) naming the key when it
// holds another type.
class GgufMetadata {
 public:
  struct Value {
    uint32_t type = 0;  // GGUF's number of the value's type, or of an array's elements
    bool is_array = false;
    uint64_t count = 1;  // elements of an array
    std::span<const std::byte> bytes;
  };

  std::optional<int64_t> Integer(const std::string& key) const;
  std::optional<double> Number(const std::string& key) const;
  std::optional<bool> Flag(const std::string& key) const;
  std::optional<std::string> Text(const std::string& key) const;
  std::vector<std::string> Texts(const std::string& key) const;  // of an array; absent = empty
  std::vector<double> Numbers(const std::string& key) const;

  std::map<std::string, Value, std::less<>> values;
  std::string where;

 private:
  const Value* Find(const std::string& key, bool array) const;
};

struct GgufTensor {
  TensorInfo info;  // dtype as it is read: f32 for block formats
  GgufType type = GgufType::kF32;
  std::span<const std::byte> bytes;
};

struct GgufFile {
  GgufMetadata metadata;
  std::vector<GgufTensor> tensors;
};

// Parses the bytes of a whole file, versions 2 and 3, little-endian. Throws Error(kCorruptData)
// when it is damaged, ends too early (it says by how many bytes) or a tensor is of a type other
// than ReadableGgufTypes() (it says which). Sizes are given slowest first, as in every TensorInfo.
GgufFile ParseGguf(std::span<const std::byte> file, const std::string& where);

// One file, or all files of a split model (io/gguf_split.h), whichever of them is given; the first
// one's metadata. Throws Error(kNotFound) naming missing parts, Error(kCorruptData) when the parts
// do not belong together.
class GgufSource final : public MappedSource {
 public:
  explicit GgufSource(const std::filesystem::path& path);

  std::string_view format() const override { return "gguf"; }
  const GgufMetadata& metadata() const { return metadata_; }

 private:
  GgufMetadata metadata_;
};

}  // namespace lwm::io
