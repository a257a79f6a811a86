#pragma once

#include <cstdint>

namespace lwm {

// Blocks up to this size come from the heap, which keeps their pages for the next one: fresh pages
// for every large result cost a third of a small training step. Larger ones get pages of their own,
// given back when freed, and huge ones (of kHugePageBytes) where the system has them.
inline constexpr int64_t kHeapBlockBytes = int64_t{16} << 20;
// Free bytes at the heap's top that are not returned to the system.
inline constexpr int64_t kHeapTopBytes = int64_t{64} << 20;
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Configures the C library and LibTorch so; the user's environment variables win. Call
// before the first tensor is made, from one thread.
void ConfigureAllocator();

}  // namespace lwm
