#pragma once

#include <sys/mman.h>
#include <unistd.h>

#include <cstddef>
#include <cstdint>
#include <cstdlib>
#include <span>
#include <string>

#include "lwm/base/error.h"

namespace lwm::fuzz {

inline void Check(bool holds) {
  if (!holds) std::abort();
}

// Runs a reader on the input, which it may refuse with an Error. What a fuzz target returns.
template <class Read>
int ReadOrRefuse(const uint8_t* data, size_t size, const Read& read) {
  try {
    read(std::as_bytes(std::span(data, size)));
  } catch (const Error&) {  // refused
  }
  return 0;
}

// Whether a reader of data may refuse its input like this: as damaged, or as a Git LFS pointer.
inline bool IsRefusal(const Error& error) {
  return error.code() == ErrorCode::kCorruptData || error.code() == ErrorCode::kNotFound;
}

// The input as a file, for readers that open one.
class InputFile {
 public:
  InputFile(const uint8_t* data, size_t size) : descriptor_(memfd_create("input", 0)) {
    Check(descriptor_ >= 0 && write(descriptor_, data, size) == static_cast<ssize_t>(size));
  }
  ~InputFile() { close(descriptor_); }
  InputFile(const InputFile&) = delete;
  InputFile& operator=(const InputFile&) = delete;

  std::string path() const { return "/proc/self/fd/" + std::to_string(descriptor_); }

 private:
  int descriptor_;
};

}  // namespace lwm::fuzz
