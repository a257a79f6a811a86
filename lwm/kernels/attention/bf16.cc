#include "lwm/kernels/attention/bf16.h"

#if !defined(__x86_64__) || !defined(__linux__)  // another kind of machine

// Callers ask Avx512Bf16Available() first, so these only have to link.
namespace lwm::kernels {
bool PackTransposedPairs(const void* const*, int, int, uint16_t*) noexcept { return true; }
bool PackPairs(const void* const*, int, int, uint16_t*) noexcept { return true; }
void Avx512Forward(const Bf16TileShape&, const Bf16ForwardTask&, const Bf16Scratch&) noexcept {}
void Avx512Backward(const Bf16TileShape&, const Avx512BackwardTask&, const Bf16Scratch&) noexcept {}
}  // namespace lwm::kernels

#endif
