#include "lwm/base/instruction_set.h"

#include <cstdlib>
#include <iterator>
#include <string>

#include "lwm/base/error.h"

#if defined(__x86_64__) && defined(__linux__)
#include <cpuid.h>
#include <sys/syscall.h>
#include <unistd.h>
#endif

namespace lwm {
namespace {

// Each library's own name for a generation; nullptr = no limit is set.
struct Names {
  const char *ours, *onednn, *libtorch, *mkl;
};
constexpr Names kNames[] = {
    {"avx2", "AVX2", "avx2", "AVX2"},
    {"avx512", "AVX512_CORE", "avx512", "AVX512"},
    {"avx512_bf16", "AVX512_CORE_BF16", "avx512", "AVX512_E3"},
    {"amx", nullptr, nullptr, nullptr},
};

#if defined(__x86_64__) && defined(__linux__)

// The compiler's test includes whether the operating system saves the AVX-512 registers.
bool FindAvx512Bf16() {
  return MostInstructions() >= InstructionSet::kAvx512Bf16 && __builtin_cpu_supports("avx512f") &&
         __builtin_cpu_supports("avx512bw") && __builtin_cpu_supports("avx512dq") &&
         __builtin_cpu_supports("avx512vl") && __builtin_cpu_supports("avx512bf16");
}

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

#else  // another kind of machine

bool FindAvx512Bf16() { return false; }
bool AskForAmx() { return false; }

#endif

void SetUnlessSet(const char* name, const char* value) {
  if (value) setenv(name, value, /*overwrite=*/0);
}

}  // namespace

InstructionSet ParseInstructionSet(const std::string& name) {
  for (size_t i = 0; i < std::size(kNames); ++i)
    if (name == kNames[i].ours) return static_cast<InstructionSet>(i);
  throw Error(ErrorCode::kInvalidArgument,
              Cat("LWM_MAX_ISA=", name, ": want avx2, avx512, avx512_bf16 or amx"));
}

InstructionSet MostInstructions() {
  static const InstructionSet most = [] {
    const char* name = std::getenv("LWM_MAX_ISA");
    return name && *name ? ParseInstructionSet(name) : InstructionSet::kAmx;
  }();
  return most;
}

bool Avx512Bf16Available() noexcept {
  static const bool available = FindAvx512Bf16();
  return available;
}

bool AmxAvailable() noexcept {
  static const bool available = AskForAmx();
  return available;
}

void HoldLibrariesTo(InstructionSet most) {
  const Names& names = kNames[static_cast<size_t>(most)];
  SetUnlessSet("ONEDNN_MAX_CPU_ISA", names.onednn);
  SetUnlessSet("ATEN_CPU_CAPABILITY", names.libtorch);
  SetUnlessSet("MKL_ENABLE_INSTRUCTIONS", names.mkl);
}

}  // namespace lwm
