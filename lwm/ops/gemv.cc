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

// Rows [begin, end) of one matrix. Writes sums in f32 to y and rounds them to `out` if that is
// bf16: in the same task, while they are in the cache.
template <class T>
void GemvRows(const at::Tensor& x_TC, const at::Tensor& w_RC, float* y_TR, const at::Tensor& out_TR,
              int64_t begin, int64_t end) {
  const int64_t tokens = x_TC.size(0), rows = w_RC.size(0), cols = w_RC.size(1);
  kernels::Gemv(Elements<T>(w_RC) + begin * cols, static_cast<size_t>(end - begin),
                static_cast<size_t>(cols), Elements<T>(x_TC), static_cast<size_t>(tokens),
                y_TR + begin, static_cast<size_t>(rows));
  if (out_TR.scalar_type() == at::kFloat) return;
  auto* out = out_TR.mutable_data_ptr<c10::BFloat16>();
  for (int64_t t = 0; t < tokens; ++t)
    for (int64_t r = t * rows + begin; r < t * rows + end; ++r) out[r] = y_TR[r];
}

}  // namespace

std::vector<at::Tensor> GemvEach(const at::Tensor& x_TC, const std::vector<LinearWeight>& w_RC,
                                 at::ScalarType out_dtype) {
  int64_t all_rows = 0;
  for (const LinearWeight& w : w_RC) {
    CheckGemv(x_TC, w.dense(), out_dtype);
    all_rows += w.rows();
  }
  const int64_t tokens = x_TC.size(0), cols = x_TC.size(1);
  std::vector<at::Tensor> out_TR;
  for (const LinearWeight& w : w_RC) out_TR.push_back(at::empty({tokens, w.rows()}, out_dtype));
  // Kernels write sums in f32; a bf16 result needs room for them first.
  const at::Tensor rounded =
      out_dtype == at::kFloat ? at::Tensor() : at::empty({tokens * all_rows}, at::kFloat);
  const int64_t grain = std::max<int64_t>(4, kGrainElements / std::max<int64_t>(1, cols));
  // All matrices as one stack of rows: threads get equal shares and wait for each other once.
  DispatchElement(x_TC, [&](auto element) {
    at::parallel_for(0, all_rows, grain, [&](int64_t begin, int64_t end) {
      int64_t first = 0;  // row of this matrix when all are stacked
      for (size_t i = 0; i < w_RC.size(); ++i) {
        const int64_t rows = w_RC[i].rows();
        const int64_t from = std::max<int64_t>(0, begin - first);
        const int64_t to = std::min(rows, end - first);
        float* const y = rounded.defined() ? rounded.mutable_data_ptr<float>() + tokens * first
                                           : out_TR[i].mutable_data_ptr<float>();
        if (from < to) GemvRows<decltype(element)>(x_TC, w_RC[i].dense(), y, out_TR[i], from, to);
        first += rows;
      }
    });
  });
  return out_TR;
}

at::Tensor Gemv(const at::Tensor& x_TC, const LinearWeight& w_RC, at::ScalarType out_dtype) {
  return GemvEach(x_TC, {w_RC}, out_dtype).front();
}

}  // namespace lwm::ops
