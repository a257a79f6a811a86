// The world of a build without MPI: always one rank.
#include <cstdio>
#include <cstdlib>

#include "lwm/base/error.h"
#include "lwm/dist/communicator.h"
#include "lwm/dist/launcher.h"
#include "lwm/dist/mpi_version.h"

namespace lwm::dist {

std::unique_ptr<Communicator> MakeWorldCommunicator() {
  LWM_REQUIRE(!StartedByLauncher(),
              "started as one of several ranks, but this program was built without MPI; install "
              "libopenmpi-dev and build again, or start it without mpirun");
  return MakeSelfCommunicator();
}

int RanksOnThisNode() { return 1; }

std::string MpiVersion() { return "none"; }

void AbortAllRanks(int exit_code) {
  std::fflush(nullptr);
  std::_Exit(exit_code);
}

}  // namespace lwm::dist
