#pragma once

#include <stdexcept>

#include "lwm/base/error.h"

namespace lwm::jinja {

// An operation of a template failed. Becomes an Error where its line is known; never
// leaves this module.
struct Failure : std::runtime_error {
  using std::runtime_error::runtime_error;
};

template <class... Parts>
[[noreturn]] void Fail(const Parts&... parts) {
  throw Failure(Cat(parts...));
}

}  // namespace lwm::jinja
