#include "lwm/ops/rms_norm.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/elementwise/rms_norm.h"
#include "lwm/ops/element.h"

namespace lwm::ops {
namespace {

// Elements below which another thread costs more than it saves.
constexpr int64_t kGrainElements = 1 << 15;

void RequireRows(const char* op, const at::Tensor& x_TD, const at::Tensor& w_D, double eps) {
  LWM_REQUIRE(x_TD.dim() >= 1 && w_D.dim() == 1 && w_D.size(0) >= 1 && x_TD.size(-1) == w_D.size(0),
              op, ": want x [..., dim] and w [dim], got x ", x_TD.sizes(), " w ", w_D.sizes());
  RequireFloatOrBf16(op, "x", x_TD);
  RequireFloatOrBf16(op, "w", w_D);
  LWM_REQUIRE(x_TD.is_contiguous(), op, ": want contiguous x, got strides ", x_TD.strides());
  LWM_REQUIRE(eps > 0, op, ": want eps > 0, got ", eps);
}

kernels::RmsNormShape ShapeOf(int64_t rows, int64_t cols, double eps) {
  return {static_cast<size_t>(rows), static_cast<size_t>(cols), static_cast<float>(eps)};
}

// Blocks of rows for the partial sums of the weight's gradient: their number and limits depend on
// the shape only, so that the result does not depend on the number of threads.
struct RowBlocks {
  int64_t rows, block;
  int64_t count() const { return (rows + block - 1) / block; }
};
RowBlocks MakeRowBlocks(int64_t rows) {
  constexpr int64_t kSmallest = 32, kMost = 64;
  return {rows, std::max(kSmallest, (rows + kMost - 1) / kMost)};
}

}  // namespace

at::Tensor RmsNorm(const at::Tensor& x_TD, const at::Tensor& w_D, double eps) {
  RequireRows("RmsNorm", x_TD, w_D, eps);
  const at::Tensor w32_D = w_D.to(at::kFloat).contiguous();
  at::Tensor y_TD = at::empty_like(x_TD);
  const int64_t cols = w_D.size(0), rows = x_TD.numel() / cols;
  DispatchElement(x_TD, [&](auto element) {
    using T = decltype(element);
    const T* x = Elements<T>(x_TD);
    T* y = MutableElements<T>(y_TD);
    const float* w = w32_D.const_data_ptr<float>();
    at::parallel_for(
        0, rows, std::max<int64_t>(1, kGrainElements / cols), [&](int64_t begin, int64_t end) {
          kernels::RmsNorm(x + begin * cols, w, ShapeOf(end - begin, cols, eps), y + begin * cols);
        });
  });
  return y_TD;
}

at::Tensor RmsNormBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD, const at::Tensor& w_D,
                           double eps, at::Tensor& dw_D) {
  RequireRows("RmsNormBackward", x_TD, w_D, eps);
  LWM_REQUIRE(dy_TD.sizes() == x_TD.sizes() && dy_TD.scalar_type() == x_TD.scalar_type() &&
                  dy_TD.is_contiguous(),
              "RmsNormBackward: want dy like x ", x_TD.sizes(), " ", x_TD.scalar_type(),
              ", contiguous, got ", dy_TD.sizes(), " ", dy_TD.scalar_type());
  RequireGradient("RmsNormBackward", "dw", dw_D, w_D.sizes());
  const at::Tensor w32_D = w_D.to(at::kFloat).contiguous();
  at::Tensor dx_TD = at::empty_like(x_TD);
  const int64_t cols = w_D.size(0);
  const RowBlocks blocks = MakeRowBlocks(x_TD.numel() / cols);
  // Each block of rows sums its own dw, so that threads share no sums.
  const at::Tensor partial_ND = at::zeros({blocks.count(), cols}, w32_D.options());
  DispatchElement(x_TD, [&](auto element) {
    using T = decltype(element);
    const T *dy = Elements<T>(dy_TD), *x = Elements<T>(x_TD);
    T* dx = MutableElements<T>(dx_TD);
    const float* w = w32_D.const_data_ptr<float>();
    float* partial = partial_ND.mutable_data_ptr<float>();
    at::parallel_for(0, blocks.count(), 1, [&](int64_t begin, int64_t end) {
      for (int64_t n = begin; n < end; ++n) {
        const int64_t first = n * blocks.block * cols;
        const int64_t rows = std::min(blocks.block, blocks.rows - n * blocks.block);
        kernels::RmsNormBackward(dy + first, x + first, w, ShapeOf(rows, cols, eps), dx + first,
                                 partial + n * cols);
      }
    });
  });
  // In the order of the blocks, whoever computed them.
  for (int64_t n = 0; n < blocks.count(); ++n) dw_D.add_(partial_ND.select(0, n));
  return dx_TD;
}

}  // namespace lwm::ops
