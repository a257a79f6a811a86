#pragma once

#include <sstream>
#include <stdexcept>
#include <string>

namespace lwm {

// Why an operation failed: the only thing that callers branch on. Messages are for people: one line
// that names the thing, what was wanted and, where it helps, what to do.
enum class ErrorCode {
  kInvalidArgument,    // the caller's input is wrong: flag, shape, config, request body
  kNotFound,           // a named file, tensor or token is absent
  kCorruptData,        // bytes were read but break a checksum or a format rule
  kResourceExhausted,  // memory, disk, context length, queue
  kInternal,           // our bug: an invariant of this code base does not hold
};

class Error : public std::runtime_error {
 public:
  Error(ErrorCode code, const std::string& message) : std::runtime_error(message), code_(code) {}
  ErrorCode code() const noexcept { return code_; }

 private:
  ErrorCode code_;
};

template <class... Parts>
std::string Cat(const Parts&... parts) {
  std::ostringstream out;
  (out << ... << parts);
  return out.str();
}

}  // namespace lwm

// Cold-path checks, always on. REQUIRE blames the caller, so its message must make sense to a user;
// REQUIRE_AS does so with another code; CHECK blames us and adds the place and the condition.
#define LWM_REQUIRE_AS(code, condition, ...)                             \
  do {                                                                   \
    if (!(condition)) throw ::lwm::Error(code, ::lwm::Cat(__VA_ARGS__)); \
  } while (false)
#define LWM_REQUIRE(condition, ...) \
  LWM_REQUIRE_AS(::lwm::ErrorCode::kInvalidArgument, condition, __VA_ARGS__)
#define LWM_CHECK(condition, ...)                                                       \
  LWM_REQUIRE_AS(::lwm::ErrorCode::kInternal, condition, __FILE__, ":", __LINE__, ": ", \
                 __VA_ARGS__, " [" #condition "]")
