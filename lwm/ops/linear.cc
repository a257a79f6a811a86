#include "lwm/ops/linear.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/elementwise/accumulate.h"
#include "lwm/kernels/transpose.h"
#include "lwm/ops/element.h"
#include "lwm/ops/gemv.h"
#include "lwm/ops/product.h"

namespace lwm::ops {
namespace {

// out_CT = columns [first, first + count) of x, transposed.
void TransposeColumns(const at::Tensor& x_TR, int64_t first, at::Tensor& out_CT) {
  const uint16_t* from = Elements<uint16_t>(x_TR) + first;
  uint16_t* to = MutableElements<uint16_t>(out_CT);
  const int64_t tokens = x_TR.size(0);
  at::parallel_for(0, out_CT.size(0), 128, [&](int64_t begin, int64_t end) {
    kernels::Transpose(from + begin, static_cast<size_t>(tokens), static_cast<size_t>(end - begin),
                       static_cast<size_t>(x_TR.stride(0)), to + begin * tokens,
                       static_cast<size_t>(tokens));
  });
}

// sum += term, widened: gradients of weights are summed in f32.
void AddBf16(const at::Tensor& term, float* sum) {
  const uint16_t* from = Elements<uint16_t>(term);
  at::parallel_for(0, term.numel(), 1 << 16, [&](int64_t begin, int64_t end) {
    kernels::Accumulate(sum + begin, from + begin, static_cast<size_t>(end - begin));
  });
}

// dw += dy^T x. A product with a transposed left side runs at half the speed of a plain one, so dy
// is transposed first. By stripes of its columns, so that the copy and the product stay small and
// in the cache. The product is in bf16, summed in f32 inside, and rounded once before it is added.
void AddWeightGradientBf16(const at::Tensor& dy_any_TR, const at::Tensor& x_TC, at::Tensor& dw_RC) {
  constexpr int64_t kStripeElements = 4 << 20;
  const at::Tensor dy_TR = dy_any_TR.stride(1) == 1 ? dy_any_TR : dy_any_TR.contiguous();
  const int64_t tokens = dy_TR.size(0), rows = dy_TR.size(1), cols = x_TC.size(1);
  if (tokens == 0 || rows == 0) return;
  const int64_t stripe = std::clamp(kStripeElements / tokens / 128 * 128, int64_t{128}, rows + 127);
  const at::Tensor copy = at::empty({std::min(stripe, rows), tokens}, dy_TR.options());
  const at::Tensor product = at::empty({std::min(stripe, rows), cols}, dy_TR.options());
  for (int64_t first = 0; first < rows; first += stripe) {
    const int64_t count = std::min(stripe, rows - first);
    at::Tensor dy_ST = copy.narrow(0, 0, count), product_SC = product.narrow(0, 0, count);
    TransposeColumns(dy_TR, first, dy_ST);
    at::mm_out(product_SC, dy_ST, x_TC);
    AddBf16(product_SC, dw_RC.mutable_data_ptr<float>() + first * cols);
  }
}

}  // namespace

at::Tensor Linear(const at::Tensor& x_TC, const LinearWeight& w_RC) {
  return LinearEach(x_TC, {w_RC}).front();
}

std::vector<at::Tensor> LinearEach(const at::Tensor& x_TC, const std::vector<LinearWeight>& w_RC) {
  bool contiguous = x_TC.is_contiguous();
  for (const LinearWeight& weight : w_RC) {
    const at::Tensor& w = weight.dense();
    LWM_REQUIRE(x_TC.dim() == 2 && w.dim() == 2 && x_TC.size(1) == w.size(1) &&
                    x_TC.scalar_type() == w.scalar_type(),
                "Linear: want x [tokens,cols] and w [rows,cols] of one dtype, got x ", x_TC.sizes(),
                " ", x_TC.scalar_type(), " w ", w.sizes(), " ", w.scalar_type());
    contiguous = contiguous && w.is_contiguous();
  }
  if (x_TC.size(0) <= kGemvRows && contiguous) return GemvEach(x_TC, w_RC, x_TC.scalar_type());
  std::vector<at::Tensor> y_TR;
  for (const LinearWeight& w : w_RC) y_TR.push_back(ProductTransposed(x_TC, w.dense()));
  return y_TR;
}

void AddWeightGradient(const at::Tensor& dy_TR, const at::Tensor& x_TC, at::Tensor& dw_RC) {
  RequireGradient("AddWeightGradient", "dw", dw_RC, {dy_TR.size(1), x_TC.size(1)});
  // f32 adds in the product itself; where LibTorch lacks bf16 instructions blocks are widened to
  // f32, and nothing is rounded.
  if (dy_TR.scalar_type() == at::kFloat) {
    dw_RC.addmm_(dy_TR.t(), x_TC);
    return;
  }
  if (LibTorchMultipliesBf16()) return AddWeightGradientBf16(dy_TR, x_TC, dw_RC);
  AddWidenedProduct(dw_RC, dy_TR.t(), x_TC);
}

at::Tensor LinearBackward(const at::Tensor& dy_TR, const at::Tensor& x_TC,
                          const LinearWeight& weight, at::Tensor& dw_RC) {
  const at::Tensor& w_RC = weight.dense();
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
  return Product(dy_TR, w_RC);
}

}  // namespace lwm::ops
