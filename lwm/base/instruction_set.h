#pragma once

#include <string>

namespace lwm {

// Generations of the vector instructions of x86-64; each has those before it.
enum class InstructionSet { kAvx2, kAvx512, kAvx512Bf16, kAmx };

// "avx2", "avx512", "avx512_bf16", "amx". Throws Error(kInvalidArgument) for anything else.
InstructionSet ParseInstructionSet(const std::string& name);

// The newest instruction set that this process may use: the value of the environment variable
// LWM_MAX_ISA, read once, or kAmx if it is unset. An upper limit: instructions that the processor
// lacks are never used. Throws as ParseInstructionSet.
InstructionSet MostInstructions();

// Whether this process may use AVX512-BF16, or AMX with AVX512-BF16: the processor has them, the
// operating system saves their registers, and MostInstructions() allows them. The first call of
// AmxAvailable asks Linux for permission to use AMX.
bool Avx512Bf16Available() noexcept;
bool AmxAvailable() noexcept;

// Limits LibTorch, oneDNN and MKL to a generation by their environment variables; variables that
// are set already win. Call before the first tensor is made, from one thread.
// kernels::HoldInstructions does that, and the same for our own kernels.
void HoldLibrariesTo(InstructionSet most);

}  // namespace lwm
