#pragma once

#include <cstdint>

namespace lwm {

// The target of a position without one, as in PyTorch's cross_entropy (ignore_index) and Hugging
// Face's labels.
inline constexpr int32_t kNoTarget = -100;

}  // namespace lwm
