#include "lwm/ops/tensor_parallel.h"

#include <ATen/ATen.h>

namespace lwm::ops {

at::Tensor SumOverRanks(dist::Communicator* group, const at::Tensor& x) {
  if (group == nullptr || group->size() == 1) return x;
  at::Tensor sum = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  group->AllReduceSum(std::span(sum.data_ptr<float>(), static_cast<size_t>(sum.numel())));
  return sum.to(x.scalar_type());
}

}  // namespace lwm::ops
