#pragma once

#include <string>

namespace lwm::app {

// "lwm 0.1.0", then a line each: commit, LibTorch, oneDNN and Highway with the instructions they
// use, MPI.
std::string VersionText();

}  // namespace lwm::app
