#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

namespace lwm::kernels {

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

// `count` uninitialised numbers, aligned for the widest loads and for pages of large tiles.
template <class T>
using AlignedBuffer = std::unique_ptr<T[], FreeDeleter>;

template <class T>
AlignedBuffer<T> MakeAlignedBuffer(size_t count) {
  constexpr size_t kAlignment = 4096;
  const size_t bytes = (count * sizeof(T) + kAlignment - 1) / kAlignment * kAlignment;
  T* memory = static_cast<T*>(std::aligned_alloc(kAlignment, bytes ? bytes : kAlignment));
  if (!memory) throw std::bad_alloc();
  return AlignedBuffer<T>(memory);
}

}  // namespace lwm::kernels
