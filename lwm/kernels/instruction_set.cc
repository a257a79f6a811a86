#include "lwm/kernels/instruction_set.h"

#include <hwy/targets.h>

#include <cstdint>

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {
namespace {

// On x86-64 Highway's targets are bits, the better ones lower: all that are better than what is
// allowed. Names that this Highway does not know are of targets that it does not have.
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
