#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>

namespace lwm::ops {

// Memory for large scratch of one call. The process keeps freed pieces, up to kKeptScratchBytes,
// for the next call: the system clears new pages, which can take as long as the computation itself.
// Contents are undefined. Any thread.
constexpr size_t kKeptScratchBytes = size_t{256} << 20;

// Page-aligned bytes, in huge pages where there are.
class ScratchMemory {
 public:
  explicit ScratchMemory(size_t bytes);
  ~ScratchMemory();
  ScratchMemory(const ScratchMemory&) = delete;
  ScratchMemory& operator=(const ScratchMemory&) = delete;

  char* data() const { return data_; }

 private:
  char* data_;
  size_t bytes_;  // at least as many as requested
};

// A contiguous tensor in such memory, which is freed with the last reference to it.
at::Tensor ScratchTensor(at::IntArrayRef shape, at::ScalarType dtype);

}  // namespace lwm::ops
