#pragma once

#include <gtest/gtest.h>

#include <functional>
#include <string>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::testing_support {

// `action` throws an Error of this code whose message is one line that holds all the parts.
inline void ExpectError(const std::function<void()>& action, ErrorCode code,
                        const std::vector<std::string>& parts) {
  try {
    action();
    ADD_FAILURE() << "no error, where one should say \"" << (parts.empty() ? "" : parts[0]) << '"';
  } catch (const Error& error) {
    const std::string message = error.what();
    EXPECT_EQ(static_cast<int>(error.code()), static_cast<int>(code)) << message;
    EXPECT_EQ(message.find('\n'), std::string::npos) << message;
    for (const std::string& part : parts)
      EXPECT_NE(message.find(part), std::string::npos) << "no \"" << part << "\" in: " << message;
  }
}

// Whether `action` throws an Error of this code.
inline testing::AssertionResult ThrowsError(const std::function<void()>& action, ErrorCode code) {
  try {
    action();
  } catch (const Error& error) {
    if (error.code() == code) return testing::AssertionSuccess();
    return testing::AssertionFailure() << "code " << static_cast<int>(error.code()) << ", want "
                                       << static_cast<int>(code) << ": " << error.what();
  }
  return testing::AssertionFailure() << "no error";
}

}  // namespace lwm::testing_support

// EXPECT_THROW for an Error of a code (kInvalidArgument ...): a failure inside the program must not
// pass for a refusal.
#define EXPECT_ERROR(statement, error_code) \
  EXPECT_TRUE(::lwm::testing_support::ThrowsError([&] { statement; }, ::lwm::ErrorCode::error_code))
