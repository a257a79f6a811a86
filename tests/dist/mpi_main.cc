// main() of the test programs that run under mpirun: a failure on any rank fails the program.
#include "tests/dist/mpi_main.h"

#include <gtest/gtest.h>

#include <memory>

#include "lwm/kernels/instruction_set.h"

namespace lwm::testing {
namespace {
std::unique_ptr<dist::Communicator> world;
}

dist::Communicator& World() { return *world; }

}  // namespace lwm::testing

int main(int argc, char** argv) {
  ::testing::InitGoogleTest(&argc, argv);
  lwm::kernels::HoldInstructions();
  lwm::testing::world = lwm::dist::MakeWorldCommunicator();
  double failed = RUN_ALL_TESTS();
  lwm::testing::world->AllReduceMax(std::span(&failed, 1));
  lwm::testing::world.reset();
  return failed != 0;
}
