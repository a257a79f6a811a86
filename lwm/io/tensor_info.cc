#include "lwm/io/tensor_info.h"

#include <algorithm>
#include <limits>

#include "lwm/base/error.h"

namespace lwm::io {

std::optional<uint64_t> TensorBytes(DType dtype, const std::vector<int64_t>& shape) noexcept {
  constexpr auto kLimit = static_cast<uint64_t>(std::numeric_limits<int64_t>::max());
  uint64_t bytes = DTypeSize(dtype);
  if (std::any_of(shape.begin(), shape.end(), [](int64_t size) { return size < 0; })) return {};
  if (std::count(shape.begin(), shape.end(), 0) > 0) return 0;
  for (const int64_t size : shape) {
    if (bytes > kLimit / static_cast<uint64_t>(size)) return {};
    bytes *= static_cast<uint64_t>(size);
  }
  return bytes;
}

uint64_t TensorBytes(const TensorInfo& info) {
  const auto bytes = TensorBytes(info.dtype, info.shape);
  LWM_CHECK(bytes.has_value(), "tensor ", info.name, " has an impossible shape");
  return *bytes;
}

std::string ShapeText(const std::vector<int64_t>& shape) {
  std::string text = "[";
  for (size_t i = 0; i < shape.size(); ++i) text += (i ? ", " : "") + std::to_string(shape[i]);
  return text + "]";
}

}  // namespace lwm::io
