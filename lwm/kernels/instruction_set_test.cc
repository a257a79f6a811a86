#include "lwm/kernels/instruction_set.h"

#include <gtest/gtest.h>
#include <hwy/targets.h>

#include "lwm/base/instruction_set.h"

namespace lwm::kernels {
namespace {

TEST(KernelInstructionsTest, NoKernelUsesMoreThanIsAllowed) {
  HoldInstructions();
  const InstructionSet most = MostInstructions();
  EXPECT_FALSE(most < InstructionSet::kAmx && AmxAvailable());
  EXPECT_FALSE(most < InstructionSet::kAvx512Bf16 && Avx512Bf16Available());
#if HWY_ARCH_X86
  const int64_t targets = hwy::SupportedTargets();
  EXPECT_FALSE(most < InstructionSet::kAvx512 && (targets & (HWY_AVX3 | HWY_AVX3_DL)));
  EXPECT_FALSE(most < InstructionSet::kAvx512Bf16 && (targets & HWY_AVX3_DL));
#endif
  EXPECT_NE(hwy::SupportedTargets(), 0);
}

}  // namespace
}  // namespace lwm::kernels
