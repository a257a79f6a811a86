#include "lwm/kernels/attention/amx.h"

#if defined(__x86_64__) && defined(__linux__)

#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {
namespace {

// The processor must have the instructions, and Linux must allow them: without permission the first
// tile instruction ends the process, because the 8 KB of tile state need larger buffers, which the
// kernel allocates on request only (docs.kernel.org/arch/x86/xstate.html). The permission holds for
// all threads of the process.
bool AskForAmx() {
  if (MostInstructions() != InstructionSet::kAmx) return false;
  // Leaf 7, subleaves 0 and 1 (Intel SDM, CPUID).
  unsigned a, b, c, d;
  if (!__get_cpuid_count(7, 0, &a, &b, &c, &d)) return false;
  constexpr unsigned kAmxBf16 = 1u << 22, kAmxTile = 1u << 24;
  constexpr unsigned kAvx512 = 1u << 16 | 1u << 17 | 1u << 30 | 1u << 31;  // F, DQ, BW, VL
  if ((d & kAmxBf16) == 0 || (d & kAmxTile) == 0 || (b & kAvx512) != kAvx512) return false;
  if (!__get_cpuid_count(7, 1, &a, &b, &c, &d) || (a & 1u << 5) == 0) return false;  // AVX512-BF16
  constexpr long kRequestPermission = 0x1023, kTileData = 18;  // arch_prctl, Linux 5.16
  return syscall(SYS_arch_prctl, kRequestPermission, kTileData) == 0;
}

}  // namespace

bool AmxAvailable() noexcept {
  static const bool available = AskForAmx();
  return available;
}

}  // namespace lwm::kernels

#else  // no AMX on this kind of machine

// Callers ask AmxAvailable() first, so the others only have to link.
namespace lwm::kernels {
bool AmxAvailable() noexcept { return false; }
bool AmxPackRows(const void* const*, int, int, uint16_t*) noexcept { return true; }
void AmxPackTransposedRows(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxTransposeRows(const uint16_t*, int, int, uint16_t*) noexcept {}
void AmxTransposeBlocks(const float*, const bool*, int, int, float*) noexcept {}
void AmxForward(const Bf16TileShape&, const Bf16ForwardTask&, const Bf16Scratch&) noexcept {}
void AmxBackward(const Bf16TileShape&, const AmxBackwardTask&, const Bf16Scratch&) noexcept {}
}  // namespace lwm::kernels

#endif
