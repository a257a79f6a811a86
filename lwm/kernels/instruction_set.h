#pragma once

namespace lwm::kernels {

// Holds our kernels and the libraries to what LWM_MAX_ISA allows (base/instruction_set.h). Call
// first in main, from one thread. Throws Error(kInvalidArgument) when it says something else.
void HoldInstructions();

}  // namespace lwm::kernels
