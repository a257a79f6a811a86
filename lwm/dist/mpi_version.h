#pragma once

#include <string>

namespace lwm::dist {

// The MPI that this program was built with: "Open MPI v4.1.4"; "none".
std::string MpiVersion();

}  // namespace lwm::dist
