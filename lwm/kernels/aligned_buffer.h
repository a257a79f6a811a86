#pragma once

#include <cstddef>
#include <cstdlib>
#include <memory>
#include <new>

#if defined(__linux__)
#include <sys/mman.h>
#endif

namespace lwm::kernels {

struct FreeDeleter {
  void operator()(void* memory) const { std::free(memory); }
};

// `count` uninitialised numbers from the start of a page. From 4 MiB on in huge pages, if the
// system has them: fewer TLB misses, and fewer page faults at first use.
template <class T>
using AlignedBuffer = std::unique_ptr<T[], FreeDeleter>;

template <class T>
AlignedBuffer<T> MakeAlignedBuffer(size_t count) {
  constexpr size_t kPage = 4096, kHugePage = size_t{2} << 20;
  const bool huge = count * sizeof(T) >= 2 * kHugePage;
  const size_t alignment = huge ? kHugePage : kPage;
  const size_t bytes = (count * sizeof(T) / alignment + 1) * alignment;
  T* memory = static_cast<T*>(std::aligned_alloc(alignment, bytes));
  if (!memory) throw std::bad_alloc();
#if defined(__linux__)
  if (huge) madvise(memory, bytes, MADV_HUGEPAGE);  // a hint: failure does not matter
#endif
  return AlignedBuffer<T>(memory);
}

}  // namespace lwm::kernels
