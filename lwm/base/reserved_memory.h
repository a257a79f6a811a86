#pragma once

#include <cstddef>

namespace lwm {

// A range of address space whose pages read as zero and cost memory only once they are written. It
// lets a buffer grow to a size that is not known beforehand without ever being copied.
class ReservedMemory {
 public:
  // Throws Error(kResourceExhausted) when the address space does not allow it. 0 bytes are allowed.
  explicit ReservedMemory(size_t bytes);
  ~ReservedMemory();
  ReservedMemory(ReservedMemory&& other) noexcept;
  ReservedMemory& operator=(ReservedMemory&&) = delete;

  std::byte* data() const { return data_; }
  size_t bytes() const { return bytes_; }

  // Gives the memory of the whole pages in [offset, offset + size) back; they read as zero again.
  void Discard(size_t offset, size_t size) const;

 private:
  std::byte* data_ = nullptr;  // page-aligned
  size_t bytes_ = 0;
};

}  // namespace lwm
