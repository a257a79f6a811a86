#include "lwm/ops/tensor_parallel.h"

#include <ATen/ATen.h>

namespace lwm::ops {

// A bf16 sum of P terms would be rounded P - 1 times; in f32 it is rounded to bf16 once.
at::Tensor SumOverRanks(dist::Communicator* group, const at::Tensor& x) {
  if (group == nullptr || group->size() == 1) return x;
  at::Tensor sum = x.to(at::kFloat, /*non_blocking=*/false, /*copy=*/true).contiguous();
  group->AllReduceSum(std::span(sum.data_ptr<float>(), static_cast<size_t>(sum.numel())));
  return sum.to(x.scalar_type());
}

}  // namespace lwm::ops
