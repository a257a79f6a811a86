#include "lwm/base/pace.h"

#include "lwm/base/format.h"
#include "lwm/base/text.h"

namespace lwm {

std::string Pace::Left(double share) const {
  return fmt::format("{:.1f} %, {} left", 100 * share,
                     FormatDuration(seconds() * (1 - share) / share));
}

}  // namespace lwm
