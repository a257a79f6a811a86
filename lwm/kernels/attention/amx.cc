#include "lwm/kernels/attention/amx.h"

#if !defined(__x86_64__) || !defined(__linux__)  // no AMX on this kind of machine

// Callers ask AmxAvailable() first, so these only have to link.
namespace lwm::kernels {
bool AmxPackRows(const void* const*, int, int, uint16_t*) noexcept { return true; }
void AmxPackTransposedRows(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxTransposeRows(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxTransposeBlocks(const float*, const bool*, int, int, float*) noexcept {}
void AmxForward(const Bf16TileShape&, const Bf16ForwardTask&, const Bf16Scratch&) noexcept {}
void AmxBackward(const Bf16TileShape&, const AmxBackwardTask&, const Bf16Scratch&) noexcept {}
}  // namespace lwm::kernels

#endif
