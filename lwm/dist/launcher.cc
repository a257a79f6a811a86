#include "lwm/dist/launcher.h"

#include <sched.h>
#include <unistd.h>

#include <algorithm>
#include <cstdlib>
#include <initializer_list>
#include <string>

#include "lwm/base/process.h"

namespace lwm::dist {
namespace {

// Whether Open MPI bound this process, and nobody asked it to: options of mpirun, the environment
// and cluster-wide settings reach ranks as such variables.
bool IsBoundByDefault() {
  if (!std::getenv("OMPI_MCA_orte_bound_at_launch")) return false;
  for (const char* asked : {"OMPI_MCA_hwloc_base_binding_policy", "OMPI_MCA_hwloc_base_cpu_list",
                            "OMPI_MCA_hwloc_base_cpu_set", "OMPI_MCA_hwloc_base_slot_list",
                            "OMPI_MCA_rmaps_base_cpus_per_rank", "OMPI_MCA_rmaps_base_slot_list",
                            "OMPI_MCA_rmaps_rank_file_path", "OMPI_MCA_orte_rankfile"}) {
    if (std::getenv(asked)) return false;
  }
  // --map-by socket:PE=4 binds to that many cores.
  const char* mapping = std::getenv("OMPI_MCA_rmaps_base_mapping_policy");
  return !mapping || std::string(mapping).find("PE=") == std::string::npos;
}

}  // namespace

bool StartedByLauncher() {
  // Open MPI; MPICH and Intel MPI (PMI_*); launchers that use PMIx.
  for (const char* name : {"OMPI_COMM_WORLD_SIZE", "PMI_SIZE", "PMI_RANK", "PMIX_RANK"}) {
    if (std::getenv(name)) return true;
  }
  // A batch script and an interactive Slurm shell are tasks too, but alone.
  const char* tasks = std::getenv("SLURM_STEP_NUM_TASKS");
  return std::getenv("SLURM_PROCID") && tasks && std::atoi(tasks) > 1;
}

int LaunchedRank() {
  for (const char* name : {"OMPI_COMM_WORLD_RANK", "PMIX_RANK", "PMI_RANK", "SLURM_PROCID"}) {
    if (const char* rank = std::getenv(name)) return std::atoi(rank);
  }
  return 0;
}

int LaunchedRanksOnThisNode() {
  for (const char* name : {"OMPI_COMM_WORLD_LOCAL_SIZE", "MPI_LOCALNRANKS"}) {
    if (const char* ranks = std::getenv(name)) return std::max(1, std::atoi(ranks));
  }
  return 1;
}

bool UndoDefaultBinding() {
  if (!IsBoundByDefault()) return false;
  // The parent is usually the launcher's process on this machine. Its mask is the limit: a batch
  // system may have given the job a part of the cores only.
  cpu_set_t launcher;
  CPU_ZERO(&launcher);
  if (sched_getaffinity(getppid(), sizeof(launcher), &launcher) != 0) return false;
  // A rank that has its share already was bound as wide as it needs; that is left alone.
  const int bound = AllowedCores(), share = CPU_COUNT(&launcher) / LaunchedRanksOnThisNode();
  if (bound >= share || sched_setaffinity(0, sizeof(launcher), &launcher) != 0) return false;
  return AllowedCores() > bound;
}

}  // namespace lwm::dist
