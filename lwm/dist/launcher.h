#pragma once

namespace lwm::dist {

// True when mpirun, an MPI-aware scheduler or `srun -n 2` or more started this process, that is
// when there may be other ranks. Looks at the environment only.
bool StartedByLauncher();

// Ranks that the launcher started on this machine, this one included; 1 if it does not say.
int LaunchedRanksOnThisNode();

// Open MPI binds each rank of a small job to one core unless it is told otherwise. Where nothing
// but that default keeps this process from its share of the cores that mpirun itself may use, lets
// it run on all of those. Returns whether it may use more cores now. Libraries that have counted
// cores before should then be started anew.
bool UndoDefaultBinding();

}  // namespace lwm::dist
