#pragma once

#include <array>
#include <cstddef>
#include <filesystem>
#include <span>
#include <string>
#include <vector>

#include "lwm/base/file.h"
#include "lwm/io/byte_reader.h"
#include "lwm/io/tensor_source.h"

namespace lwm::io {

// One leaf of a JAX checkpoint: an array, whole or in chunks, or a Python number.
struct MsgpackTensor {
  TensorInfo info;                                 // name = the key's parts joined with '/'
  std::vector<std::span<const std::byte>> chunks;  // consecutive pieces of the C-order data
  std::array<std::byte, 8> scalar{};               // the data of a Python number (no chunks)
  bool is_scalar = false;
};

// Reads both forms of a flax checkpoint: the stream of records [key, blob] that tux and EasyLM
// write (the whole file must be complete records; None leaves are skipped) and one map of the whole
// tree (flax_params). The spans point into `file`; only headers are read. Throws
// Error(kCorruptData), also when the last record is cut.
std::vector<MsgpackTensor> ParseMsgpackCheckpoint(std::span<const std::byte> file,
                                                  const std::string& where);

class MsgpackSource final : public TensorSource {
 public:
  explicit MsgpackSource(const std::filesystem::path& path);

  std::string_view format() const override { return "lwm-jax"; }
  void ReadRange(size_t index, uint64_t offset, std::span<std::byte> destination) const override;

 private:
  MappedFile file_;
  std::vector<MsgpackTensor> tensors_;
};

}  // namespace lwm::io
