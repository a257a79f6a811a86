#pragma once

#include <algorithm>
#include <string>

#include "lwm/base/process.h"

namespace lwm {

// The pace of long work, for lines about it now and then. Begins when it is made.
class Pace {
 public:
  explicit Pace(double seconds_between_lines) : between_(seconds_between_lines) {}

  // Whether it is time for a line, until Shown.
  bool is_due() const { return MonotonicSeconds() - shown_ >= between_; }
  void Shown() { shown_ = MonotonicSeconds(); }

  double seconds() const { return MonotonicSeconds() - start_; }
  // Per second.
  double Rate(double done) const { return done / std::max(1e-9, seconds()); }
  // "45.0 %, 3 min 20 s left" when this share of the work, in (0, 1], is done.
  std::string Left(double share) const;

 private:
  double between_;
  double start_ = MonotonicSeconds(), shown_ = start_;
};

}  // namespace lwm
