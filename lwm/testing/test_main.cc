// main() of every test program that runs without mpirun; tests/dist/mpi_main.cc is the other.
#include <gtest/gtest.h>

#include "lwm/kernels/instruction_set.h"

int main(int argc, char** argv) {
  testing::InitGoogleTest(&argc, argv);
  lwm::kernels::HoldInstructions();
  return RUN_ALL_TESTS();
}
