#include "lwm/base/allocator.h"

#include <malloc.h>

#include <cstdlib>

namespace lwm {

void ConfigureAllocator() {
  // glibc raises the mmap threshold by itself as blocks are freed; setting it fixes it.
  if (!std::getenv("MALLOC_MMAP_THRESHOLD_")) mallopt(M_MMAP_THRESHOLD, kHeapBlockBytes);
  if (!std::getenv("MALLOC_TRIM_THRESHOLD_")) mallopt(M_TRIM_THRESHOLD, kHeapTopBytes);
  setenv("THP_MEM_ALLOC_ENABLE", "1", /*overwrite=*/0);  // read by LibTorch at its first tensor
}

}  // namespace lwm
