#pragma once

#include <cstdint>

#include "lwm/jinja/failure.h"

namespace lwm::jinja {

// How much work and memory a rendering may still spend.
class Budget {
 public:
  Budget(int64_t operations, int64_t bytes)
      : operations_(operations), bytes_(bytes), of_operations_(operations), of_bytes_(bytes) {}

  void Step(size_t count = 1) {
    operations_ -= static_cast<int64_t>(count);
    if (operations_ < 0) Fail("the template does more than ", of_operations_, " operations");
  }

  // For a text or list of this size that is about to be made.
  void Spend(size_t bytes) {
    bytes_ -= static_cast<int64_t>(bytes);
    if (bytes_ < 0) Fail("the template makes more than ", of_bytes_, " bytes of text and lists");
  }

 private:
  int64_t operations_, bytes_, of_operations_, of_bytes_;
};

}  // namespace lwm::jinja
