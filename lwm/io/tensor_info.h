#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "lwm/io/dtype.h"

namespace lwm::io {

// A file's description of one tensor. Data is C-order (last dimension fastest), little-endian.
struct TensorInfo {
  std::string name;
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;  // every size >= 0; empty = one number
};

// Bytes of a tensor, or nothing when a size is negative or the product does not fit in 63 bits.
std::optional<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape) noexcept;

// TensorBytes of an info that a reader has validated already.
uint64_t TensorBytes(const TensorInfo& info);

// "[2, 3]".
std::string ShapeText(const std::vector<int64_t>& shape);

}  // namespace lwm::io
