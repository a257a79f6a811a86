#pragma once

#include <cstddef>
#include <cstdint>
#include <filesystem>
#include <span>
#include <string>

#include "lwm/io/atomic_output.h"
#include "lwm/io/tensor_info.h"

namespace lwm::io {

// Streams a JAX checkpoint of records [key, blob] (see msgpack_stream.h), byte for byte as tux
// writes it: shortest encodings, arrays above 2^30 bytes in chunks. Each record's bytes may come in
// pieces; nothing is held. The file appears under its name on Finish.
class MsgpackWriter {
 public:
  static constexpr uint64_t kChunkBytes = uint64_t{1} << 30;

  // Arrays above `chunk_bytes` go in chunks of that size; other readers expect 2^30.
  explicit MsgpackWriter(const std::filesystem::path& path, uint64_t chunk_bytes = kChunkBytes)
      : chunk_bytes_(chunk_bytes), output_(path) {}

  // Begins the record of info.name, whose parts are joined with '/'. Throws Error(kInvalidArgument)
  // when the array is beyond msgpack's limit of 4 GiB for one blob.
  void Begin(const TensorInfo& info);
  // Appends C-order data of the record begun last.
  void Write(std::span<const std::byte> bytes);
  void Finish();

 private:
  void BeginChunk();

  uint64_t chunk_bytes_;
  AtomicOutput output_;
  TensorInfo info_;
  uint64_t remaining_ = 0;        // of the record's data
  uint64_t chunk_remaining_ = 0;  // of the chunk being written
  uint64_t chunk_index_ = 0;
  bool chunked_ = false;
};

}  // namespace lwm::io
