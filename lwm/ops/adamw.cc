#include "lwm/ops/adamw.h"

#include <ATen/Parallel.h>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

// Elements per task: 64 KiB of each array, enough to be worth a thread. Elements do not depend on
// each other, so any division gives the same bits.
constexpr int64_t kGrain = 1 << 14;

// LWM_CHECK, not LWM_REQUIRE: these tensors are the trainer's own, no user's input.
float* Data(const at::Tensor& x_n, const AdamWTensors& tensors) {
  if (!x_n.defined()) return nullptr;
  LWM_CHECK(x_n.scalar_type() == at::kFloat && x_n.is_contiguous() &&
                x_n.sizes() == tensors.value_n.sizes(),
            "AdamW: want f32 ", tensors.value_n.sizes(), ", got ", x_n.scalar_type(), " ",
            x_n.sizes());
  return x_n.data_ptr<float>();
}

uint16_t* Bits(const at::Tensor& copy_n, const AdamWTensors& tensors) {
  if (!copy_n.defined()) return nullptr;
  LWM_CHECK(copy_n.scalar_type() == at::kBFloat16 && copy_n.is_contiguous() &&
                copy_n.sizes() == tensors.value_n.sizes(),
            "AdamW: want a bf16 copy ", tensors.value_n.sizes(), ", got ", copy_n.scalar_type(),
            " ", copy_n.sizes());
  return static_cast<uint16_t*>(copy_n.mutable_data_ptr());
}

}  // namespace

void AdamW(const kernels::AdamWStep& step, const AdamWTensors& tensors, int64_t begin,
           int64_t end) {
  LWM_CHECK(tensors.gradient_n.defined() && tensors.value_n.defined() &&
                tensors.first_n.defined() && tensors.second_n.defined() && 0 <= begin &&
                begin <= end && end <= tensors.value_n.numel(),
            "AdamW of elements ", begin, " to ", end);
  const kernels::AdamWArrays arrays{.gradient_n = Data(tensors.gradient_n, tensors),
                                    .value_n = Data(tensors.value_n, tensors),
                                    .first_n = Data(tensors.first_n, tensors),
                                    .second_n = Data(tensors.second_n, tensors),
                                    .average_n = Data(tensors.average_n, tensors),
                                    .copy_n = Bits(tensors.copy_n, tensors)};
  at::parallel_for(begin, end, kGrain, [&](int64_t from, int64_t to) {
    kernels::AdamW(step, arrays, static_cast<size_t>(from), static_cast<size_t>(to));
  });
}

}  // namespace lwm::ops
