#pragma once

#include "lwm/dist/communicator.h"

namespace lwm::testing {

// All ranks of this test program: mpirun starts it with 1, 2, 3 or 4.
dist::Communicator& World();

}  // namespace lwm::testing
