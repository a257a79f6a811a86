#include "lwm/io/strided.h"

#include <algorithm>
#include <cstring>

#include "lwm/base/error.h"
#include "lwm/io/tensor_info.h"

namespace lwm::io {
namespace {

template <size_t kSize>
void CopyRun(const std::byte* from, int64_t stride, int64_t count, std::byte* to) {
  for (int64_t i = 0; i < count; ++i) std::memcpy(to + i * kSize, from + i * stride * kSize, kSize);
}

void CopyRun(size_t element_size, const std::byte* from, int64_t stride, int64_t count,
             std::byte* to) {
  switch (element_size) {
    case 1:
      return CopyRun<1>(from, stride, count, to);
    case 2:
      return CopyRun<2>(from, stride, count, to);
    case 4:
      return CopyRun<4>(from, stride, count, to);
    default:
      return CopyRun<8>(from, stride, count, to);
  }
}

int64_t Dot(const std::vector<int64_t>& index, const std::vector<int64_t>& strides) {
  int64_t sum = 0;
  for (size_t d = 0; d < index.size(); ++d) sum += index[d] * strides[d];
  return sum;
}

// Moves to the start of the next run of the last dimension.
void NextRun(const std::vector<int64_t>& shape, std::vector<int64_t>& index) {
  index.back() = 0;
  for (size_t d = index.size() - 1; d-- > 0;) {
    if (++index[d] < shape[d]) return;
    index[d] = 0;
  }
}

}  // namespace

std::vector<int64_t> ContiguousStrides(const std::vector<int64_t>& shape) {
  std::vector<int64_t> strides(shape.size(), 1);
  // Sizes beside a zero may be anything: such a product may wrap, and is never used.
  for (size_t d = shape.size(); d-- > 1;)
    strides[d - 1] =
        static_cast<int64_t>(static_cast<uint64_t>(strides[d]) * static_cast<uint64_t>(shape[d]));
  return strides;
}

void CheckStrided(const StridedTensor& tensor, const std::string& where) {
  const auto require = [&](bool condition) {
    LWM_REQUIRE_AS(ErrorCode::kCorruptData, condition, where, ": shape ", ShapeText(tensor.shape),
                   ", strides ", ShapeText(tensor.strides), ", offset ", tensor.offset,
                   " do not lie in its storage of ", tensor.storage.size(), " bytes");
  };
  const auto bytes = TensorBytes(tensor.dtype, tensor.shape);
  require(tensor.shape.size() == tensor.strides.size() && bytes.has_value() && tensor.offset >= 0);
  require(*bytes <= tensor.storage.size());
  if (*bytes == 0) return;
  const auto elements = static_cast<int64_t>(tensor.storage.size() / DTypeSize(tensor.dtype));
  require(tensor.offset < elements);
  // Elements that the index may still move on by. It only falls and each product is checked against
  // it by a division, so nothing overflows.
  int64_t room = elements - 1 - tensor.offset;
  for (size_t d = 0; d < tensor.shape.size(); ++d) {
    const int64_t steps = tensor.shape[d] - 1, stride = tensor.strides[d];
    require(stride >= 0 && (steps == 0 || stride <= room / steps));
    room -= steps * stride;
  }
}

void ReadStrided(const StridedTensor& tensor, uint64_t offset, std::span<std::byte> destination) {
  if (destination.empty()) return;
  const size_t size = DTypeSize(tensor.dtype);
  const std::byte* base = tensor.storage.data() + static_cast<size_t>(tensor.offset) * size;
  if (tensor.shape.empty() || tensor.strides == ContiguousStrides(tensor.shape)) {
    std::memcpy(destination.data(), base + offset, destination.size());
    return;
  }
  auto linear = static_cast<int64_t>(offset / size);
  std::vector<int64_t> index(tensor.shape.size());
  for (size_t d = index.size(); d-- > 0; linear /= tensor.shape[d])
    index[d] = linear % tensor.shape[d];
  auto left = static_cast<int64_t>(destination.size() / size);
  for (std::byte* to = destination.data(); left > 0; NextRun(tensor.shape, index)) {
    const int64_t count = std::min(left, tensor.shape.back() - index.back());
    CopyRun(size, base + static_cast<size_t>(Dot(index, tensor.strides)) * size,
            tensor.strides.back(), count, to);
    to += static_cast<size_t>(count) * size;
    left -= count;
  }
}

}  // namespace lwm::io
