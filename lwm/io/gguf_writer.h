#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>
#include <string_view>
#include <vector>

#include "lwm/io/atomic_output.h"
#include "lwm/io/gguf_blocks.h"

namespace lwm::io {

// Metadata of a GGUF file under construction, in the order of the calls.
class GgufKeys {
 public:
  void AddUnsigned(std::string_view key, uint32_t value);
  void AddFloat(std::string_view key, float value);
  void AddFlag(std::string_view key, bool value);
  void AddText(std::string_view key, std::string_view value);
  void AddTexts(std::string_view key, std::span<const std::string> values);
  void AddFloats(std::string_view key, std::span<const float> values);
  void AddIntegers(std::string_view key, std::span<const int32_t> values);

  uint64_t count() const { return count_; }
  const std::string& bytes() const { return bytes_; }

 private:
  void Begin(std::string_view key, uint32_t type);
  void BeginArray(std::string_view key, uint32_t type, uint64_t count);

  uint64_t count_ = 0;
  std::string bytes_;
};

// Streams a GGUF file, version 3: all tensors declared first, then each one's bytes in that order,
// whole or in pieces, in their stored form. The file appears under its name on Finish.
class GgufWriter {
 public:
  struct Tensor {
    std::string name;
    std::vector<int64_t> shape;  // slowest first; rows of block types are whole blocks
    GgufType type;
  };
  static constexpr uint64_t kAlignment = 32;

  GgufWriter(const std::filesystem::path& path, const GgufKeys& keys, std::vector<Tensor> tensors);

  // Appends to the tensor being written, which must be `name`.
  void Write(const std::string& name, std::span<const std::byte> bytes);
  void Finish();

 private:
  void PadTo(uint64_t position);

  std::vector<Tensor> tensors_;
  AtomicOutput output_;
  size_t current_ = 0;
  uint64_t remaining_ = 0;
};

// Bytes of a tensor in its stored form.
uint64_t GgufBytes(const GgufWriter::Tensor& tensor);

}  // namespace lwm::io
