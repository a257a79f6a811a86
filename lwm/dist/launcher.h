#pragma once

namespace lwm::dist {

// True when mpirun, an MPI-aware scheduler or `srun -n 2` or more started this process, that is
// when there may be other ranks. Looks at the environment only.
bool StartedByLauncher();

// This process's rank as the launcher says it, which needs no MPI; 0 without a launcher.
int LaunchedRank();

// Ranks that the launcher started on this machine, this one included; 1 if it does not say.
int LaunchedRanksOnThisNode();

// Open MPI binds each rank of a small job to one core by default. If that default, not a setting of
// the user, leaves this process fewer cores than its share of mpirun's, lifts it: the process may
// then run on all cores that mpirun may use. Returns whether it gained cores; libraries that have
// counted cores before should then be started anew.
bool UndoDefaultBinding();

}  // namespace lwm::dist
