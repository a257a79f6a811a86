#include "lwm/ops/gemv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include "lwm/base/error.h"
#include "lwm/kernels/gemv.h"
#include "lwm/ops/element.h"

namespace lwm::ops {
namespace {

// Elements of w below which another thread costs more than it saves.
constexpr int64_t kGrainElements = 1 << 15;

void CheckGemv(const at::Tensor& x_TC, const at::Tensor& w_RC, at::ScalarType out_dtype) {
  LWM_REQUIRE(x_TC.dim() == 2 && w_RC.dim() == 2 && x_TC.size(1) == w_RC.size(1),
              "Gemv: want x [tokens,cols] and w [rows,cols], got x ", x_TC.sizes(), " w ",
              w_RC.sizes());
  RequireFloatOrBf16("Gemv", "w", w_RC);
  LWM_REQUIRE(x_TC.scalar_type() == w_RC.scalar_type(), "Gemv: want x and w of one dtype, got x ",
              x_TC.scalar_type(), " w ", w_RC.scalar_type());
  LWM_REQUIRE(x_TC.is_contiguous() && w_RC.is_contiguous(), "Gemv: want contiguous inputs");
  LWM_REQUIRE(out_dtype == at::kFloat || out_dtype == at::kBFloat16,
              "Gemv: want f32 or bf16 out, got ", out_dtype);
}

}  // namespace

at::Tensor Gemv(const at::Tensor& x_TC, const at::Tensor& w_RC, at::ScalarType out_dtype) {
  CheckGemv(x_TC, w_RC, out_dtype);
  const int64_t tokens = x_TC.size(0), rows = w_RC.size(0), cols = w_RC.size(1);
  const at::Tensor y_TR = at::empty({tokens, rows}, at::kFloat);
  float* const y = y_TR.mutable_data_ptr<float>();
  const int64_t grain = std::max<int64_t>(4, kGrainElements / std::max<int64_t>(1, cols));
  DispatchElement(w_RC, [&](auto element) {
    using T = decltype(element);
    const T *const x = Elements<T>(x_TC), *const w = Elements<T>(w_RC);
    at::parallel_for(0, rows, grain, [&](int64_t begin, int64_t end) {
      kernels::Gemv(w + begin * cols, static_cast<size_t>(end - begin), static_cast<size_t>(cols),
                    x, static_cast<size_t>(tokens), y + begin, static_cast<size_t>(rows));
    });
  });
  return y_TR.to(out_dtype);
}

}  // namespace lwm::ops
