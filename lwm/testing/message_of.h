#pragma once

#include <gtest/gtest.h>

#include <string>

#include "lwm/base/error.h"

namespace lwm::testing_support {

// The one line that `act` says when it fails, which it must with that code.
template <class Act>
std::string MessageOf(const Act& act, ErrorCode code) {
  try {
    act();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), code) << error.what();
    EXPECT_EQ(std::string(error.what()).find('\n'), std::string::npos) << error.what();
    return error.what();
  }
  ADD_FAILURE() << "accepted";
  return "";
}

}  // namespace lwm::testing_support
