#pragma once

#include <string>

#include "lwm/base/error.h"
#include "lwm/io/tensor_info.h"

namespace lwm::io {

// Bounds on the tensors that a file may claim to hold, in number and in the total length of names,
// so that a small hostile file cannot demand much memory (nested prefixes multiply).
class TensorLimits {
 public:
  explicit TensorLimits(std::string where) : where_(std::move(where)) {}

  // Counts one tensor. Throws Error(kCorruptData) beyond 300,000 tensors, 32 MiB of names, 4096
  // bytes in one name, 32 dimensions, or when the size does not fit in 63 bits.
  void Count(const TensorInfo& info) {
    name_bytes_ += info.name.size();
    const bool few = ++tensors_ <= 300'000 && name_bytes_ <= (size_t{32} << 20);
    Require(few && info.name.size() <= 4096, "too many tensors, or names too long");
    Require(info.shape.size() <= 32 && TensorBytes(info.dtype, info.shape).has_value(), "tensor ",
            info.name, " has an impossible shape ", ShapeText(info.shape));
  }

 private:
  template <class... Parts>
  void Require(bool condition, const Parts&... parts) const {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, where_, ": ", parts...);
  }

  std::string where_;
  size_t tensors_ = 0;
  size_t name_bytes_ = 0;
};

}  // namespace lwm::io
