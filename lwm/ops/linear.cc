#include "lwm/ops/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "lwm/base/error.h"
#include "lwm/kernels/accumulate.h"
#include "lwm/ops/element.h"

namespace lwm::ops {

at::Tensor Linear(const at::Tensor& x_TC, const at::Tensor& w_RC) {
  LWM_REQUIRE(x_TC.dim() == 2 && w_RC.dim() == 2 && x_TC.size(1) == w_RC.size(1) &&
                  x_TC.scalar_type() == w_RC.scalar_type(),
              "Linear: want x [tokens,cols] and w [rows,cols] of one dtype, got x ", x_TC.sizes(),
              " ", x_TC.scalar_type(), " w ", w_RC.sizes(), " ", w_RC.scalar_type());
  return at::linear(x_TC, w_RC);
}

void AddWeightGradient(const at::Tensor& dy_TR, const at::Tensor& x_TC, at::Tensor& dw_RC) {
  RequireGradient("AddWeightGradient", "dw", dw_RC, {dy_TR.size(1), x_TC.size(1)});
  if (dy_TR.scalar_type() == at::kFloat) {
    dw_RC.addmm_(dy_TR.t(), x_TC);
    return;
  }
  const at::Tensor product_RC = at::mm(dy_TR.t(), x_TC).contiguous();
  float* sum = dw_RC.mutable_data_ptr<float>();
  const uint16_t* term = Elements<uint16_t>(product_RC);
  at::parallel_for(0, dw_RC.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    kernels::Accumulate(sum + begin, term + begin, static_cast<size_t>(end - begin));
  });
}

at::Tensor LinearBackward(const at::Tensor& dy_TR, const at::Tensor& x_TC, const at::Tensor& w_RC,
                          at::Tensor& dw_RC) {
  LWM_REQUIRE(dy_TR.dim() == 2 && x_TC.dim() == 2 && w_RC.dim() == 2 &&
                  dy_TR.size(0) == x_TC.size(0) && dy_TR.size(1) == w_RC.size(0) &&
                  x_TC.size(1) == w_RC.size(1),
              "LinearBackward: want dy [tokens,rows], x [tokens,cols], w [rows,cols], got dy ",
              dy_TR.sizes(), " x ", x_TC.sizes(), " w ", w_RC.sizes());
  LWM_REQUIRE(
      dy_TR.scalar_type() == x_TC.scalar_type() && dy_TR.scalar_type() == w_RC.scalar_type(),
      "LinearBackward: want one dtype, got dy ", dy_TR.scalar_type(), " x ", x_TC.scalar_type(),
      " w ", w_RC.scalar_type());
  AddWeightGradient(dy_TR, x_TC, dw_RC);
  return at::mm(dy_TR, w_RC);
}

}  // namespace lwm::ops
