#include "lwm/dist/launcher.h"

#include <cstdlib>
#include <initializer_list>

namespace lwm::dist {

bool StartedByLauncher() {
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name)) return true;
  }
  // A batch script and an interactive Slurm shell are tasks too, but alone.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return std::getenv("SLURM_PROCID") && tasks && std::atoi(tasks) > 1;
}

}  // namespace lwm::dist
