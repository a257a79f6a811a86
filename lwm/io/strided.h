#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "lwm/io/dtype.h"

namespace lwm::io {

// A tensor inside a storage of elements: element (i, j, ...) lies at offset + i*s0 + j*s1 + ...
struct StridedTensor {
  DType dtype = DType::kF32;
  std::vector<int64_t> shape;
  std::vector<int64_t> strides;  // in elements, as many as sizes
  int64_t offset = 0;            // in elements
  std::span<const std::byte> storage;
};

// Throws Error(kCorruptData) unless sizes and strides are >= 0, every element lies in the storage,
// and the tensor has no more elements than the storage (no expanded views).
void CheckStrided(const StridedTensor& tensor, const std::string& where);

// Bytes [offset, offset + destination.size()) of the checked tensor in C order; multiples of the
// element size. Contiguous tensors are one copy.
void ReadStrided(const StridedTensor& tensor, uint64_t offset, std::span<std::byte> destination);

// C-order strides of a shape.
std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& shape);

}  // namespace lwm::io
