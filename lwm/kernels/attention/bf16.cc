#include "lwm/kernels/attention/bf16.h"

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {

#if defined(__x86_64__) && defined(__linux__)

// The compiler's test includes whether the operating system saves the AVX-512 registers.
bool Avx512Bf16Available() noexcept {
  static const bool available =
      MostInstructions() >= InstructionSet::kAvx512Bf16 && __builtin_cpu_supports("avx512f") &&
      __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
      __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
  return available;
}

#else  // another kind of machine

// Callers ask Avx512Bf16Available() first, so the others only have to link.
bool Avx512Bf16Available() noexcept { return false; }
bool PackTransposedPairs(const void* const*, int, int, uint16_t*) noexcept { return true; }
bool PackPairs(const void* const*, int, int, uint16_t*) noexcept { return true; }
void Avx512Forward(const Bf16TileShape&, const Bf16ForwardTask&, const Bf16Scratch&) noexcept {}
void Avx512Backward(const Bf16TileShape&, const Avx512BackwardTask&, const Bf16Scratch&) noexcept {}

#endif

}  // namespace lwm::kernels
