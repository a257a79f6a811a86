#include "lwm/base/instruction_set.h"

#include <cstdlib>
#include <iterator>
#include <string>

#include "lwm/base/error.h"

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

void HoldLibrariesTo(InstructionSet most) {
  const Names& names = kNames[static_cast<size_t>(most)];
  SetUnlessSet("ONEDNN_MAX_CPU_ISA", names.onednn);
  SetUnlessSet("ATEN_CPU_CAPABILITY", names.libtorch);
  SetUnlessSet("MKL_ENABLE_INSTRUCTIONS", names.mkl);
}

}  // namespace lwm
