#include "lwm/checkpoint/finite.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <atomic>

#include "lwm/base/error.h"

namespace lwm::checkpoint {
namespace {

constexpr int64_t kBlock = 64;  // a fixed trip count lets the compiler vectorise

// An element is NaN or infinite when all its exponent bits are set.
template <class Bits>
bool FiniteRange(const Bits* values, int64_t count, Bits exponent) {
  Bits bad = 0;
  int64_t i = 0;
  for (; i + kBlock <= count; i += kBlock) {
    for (int64_t j = 0; j < kBlock; ++j)
      bad = static_cast<Bits>(bad | ((values[i + j] & exponent) == exponent));
    if (bad) return false;
  }
  for (; i < count; ++i) bad = static_cast<Bits>(bad | ((values[i] & exponent) == exponent));
  return bad == 0;
}

template <class Bits>
bool FiniteTensor(const at::Tensor& tensor, Bits exponent) {
  const auto* values = static_cast<const Bits*>(tensor.const_data_ptr());
  std::atomic<bool> finite = true;
  at::parallel_for(0, tensor.numel(), int64_t{1} << 20, [&](int64_t begin, int64_t end) {
    if (!FiniteRange(values + begin, end - begin, exponent)) finite = false;
  });
  return finite;
}

}  // namespace

bool AllFinite(const at::Tensor& tensor) {
  LWM_CHECK(tensor.is_contiguous() && tensor.device().is_cpu(), "tensor is not plain memory");
  switch (tensor.scalar_type()) {
    case at::kDouble:
      return FiniteTensor<uint64_t>(tensor, 0x7ff0000000000000);
    case at::kFloat:
      return FiniteTensor<uint32_t>(tensor, 0x7f800000);
    case at::kBFloat16:
      return FiniteTensor<uint16_t>(tensor, 0x7f80);
    case at::kHalf:
      return FiniteTensor<uint16_t>(tensor, 0x7c00);
    default:
      return true;
  }
}

}  // namespace lwm::checkpoint
