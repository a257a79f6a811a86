#include "lwm/kernels/libraries.h"

#include <hwy/highway.h>

#include <cstdint>

#include "lwm/base/error.h"

namespace lwm::kernels {

std::string VectorLibrary() {
  const int64_t targets = hwy::SupportedTargets() & HWY_TARGETS;
  return Cat("Highway ", HWY_MAJOR, ".", HWY_MINOR, ".", HWY_PATCH, ", ",
             hwy::TargetName(targets & -targets));  // a better target is a lower bit
}

}  // namespace lwm::kernels
