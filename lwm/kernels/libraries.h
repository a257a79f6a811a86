#pragma once

#include <string>

namespace lwm::kernels {

// The libraries behind the kernels, with the newest instructions that each uses in this process:
// "oneDNN 3.1.1, AMX" and "Highway 1.0.3, AVX3_SPR". MatmulLibrary is in matmul_tile.cc, the one
// file that includes oneDNN.
std::string MatmulLibrary();
std::string VectorLibrary();

}  // namespace lwm::kernels
