#pragma once

namespace lwm::dist {

// True when mpirun, an MPI-aware scheduler or `srun -n 2` or more started this process, that is
// when there may be other ranks. Looks at the environment only.
bool StartedByLauncher();

}  // namespace lwm::dist
