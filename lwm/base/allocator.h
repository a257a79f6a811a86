#pragma once

#include <cstdint>

namespace lwm {

// Blocks up to this size come from the heap, which keeps their pages for the next one: fresh pages
// for every large result cost a third of a small training step. Larger ones get pages of their own,
// given back when freed, and huge ones (of kHugePageBytes) where the system has them.
inline constexpr int64_t kHeapBlockBytes = int64_t{16} << 20;
// What the heap keeps at its top when it is freed.
inline constexpr int64_t kHeapTopBytes = int64_t{64} << 20;
inline constexpr int64_t kHugePageBytes = int64_t{2} << 20;

// Sets the C library's and LibTorch's allocation up so; what the user's environment says wins. Call
// before the first tensor is made, from one thread.
void ConfigureAllocator();

}  // namespace lwm
