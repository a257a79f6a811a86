#include "lwm/kernels/instruction_set.h"

#include <hwy/targets.h>

#include <cstdint>

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {
namespace {

// The Highway targets to disable: all that are better than `most`. On x86-64 targets are bits, and
// better ones are lower bits. Where this version of Highway lacks a name, it lacks the target too.
int64_t TargetsBeyond(InstructionSet most) {
#if HWY_ARCH_X86
  if (most == InstructionSet::kAvx2) return HWY_AVX2 - 1;
  if (most == InstructionSet::kAvx512) return HWY_AVX3 - 1;
#ifdef HWY_AVX3_SPR
  if (most == InstructionSet::kAvx512Bf16) return 2 * HWY_AVX3_SPR - 1;
#endif
#endif
  return 0;
}

}  // namespace

void HoldInstructions() {
  HoldLibrariesTo(MostInstructions());
  if (const int64_t beyond = TargetsBeyond(MostInstructions())) hwy::DisableTargets(beyond);
}

}  // namespace lwm::kernels
