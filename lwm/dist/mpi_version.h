#pragma once

#include <string>

namespace lwm::dist {

// The MPI that this program was built with: "Open MPI v4.1.4"; "none". Defined beside the
// communicator that is linked: in communicator_mpi.cc or communicator_local.cc.
std::string MpiVersion();

}  // namespace lwm::dist
