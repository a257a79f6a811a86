#include "version.h"

#include <torch/version.h>

#include "lwm/base/error.h"
#include "lwm/dist/mpi_version.h"
#include "lwm/kernels/libraries.h"
#include "lwm_version.h"

namespace lwm::app {

std::string VersionText() {
  return Cat("lwm ", LWM_VERSION, "\ncommit ", LWM_COMMIT, "\nLibTorch ", TORCH_VERSION, "\n",
             kernels::MatmulLibrary(), "\n", kernels::VectorLibrary(),
             "\nMPI: ", dist::MpiVersion());
}

}  // namespace lwm::app
