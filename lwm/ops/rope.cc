#include "lwm/ops/rope.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <cmath>

#include "lwm/base/error.h"
#include "lwm/kernels/elementwise/rope.h"
#include "lwm/ops/element.h"

namespace lwm::ops {

RopeTable MakeRopeTable(const at::Tensor& position_T,
                        const std::vector<double>& inverse_frequency_R, double attention_factor) {
  LWM_REQUIRE(position_T.scalar_type() == at::kInt || position_T.scalar_type() == at::kLong,
              "MakeRopeTable: want i32 or i64 positions, got ", position_T.scalar_type());
  LWM_REQUIRE(!inverse_frequency_R.empty(), "MakeRopeTable: want at least one frequency");
  // One table for all layers and heads.
  const at::Tensor flat_T = position_T.to(at::kLong).contiguous().view({-1});
  const auto pairs = static_cast<int64_t>(inverse_frequency_R.size());
  const int64_t tokens = flat_T.numel();
  const auto options = flat_T.options().dtype(at::kFloat);
  RopeTable table{at::empty({tokens, pairs}, options), at::empty({tokens, pairs}, options)};
  const int64_t* position = flat_T.const_data_ptr<int64_t>();
  float* cosine = table.cos_TR.mutable_data_ptr<float>();
  float* sine = table.sin_TR.mutable_data_ptr<float>();
  at::parallel_for(0, tokens, 64, [&](int64_t begin, int64_t end) {
    for (int64_t t = begin; t < end; ++t)
      for (int64_t r = 0; r < pairs; ++r) {
        // In f64: at position 10^6 an f32 angle could be off by 0.03.
        const double angle =
            static_cast<double>(position[t]) * inverse_frequency_R[static_cast<size_t>(r)];
        cosine[t * pairs + r] = static_cast<float>(std::cos(angle) * attention_factor);
        sine[t * pairs + r] = static_cast<float>(std::sin(angle) * attention_factor);
      }
  });
  return table;
}

// In place, on q and k as the projections wrote them. Work is divided over tokens of all rows; the
// table has one line per token of each row, since positions may restart.
void ApplyRope(at::Tensor& x_THK, const RopeTable& table, bool inverse) {
  constexpr int64_t kGrainElements = 1 << 15;
  RequireFloatOrBf16("ApplyRope", "x", x_THK);
  const int64_t dims = x_THK.dim();
  LWM_REQUIRE((dims == 3 || dims == 4) && x_THK.size(-1) == 2 * table.cos_TR.size(1),
              "ApplyRope: want x [tokens,heads,dim] or [rows,tokens,heads,dim] with dim ",
              2 * table.cos_TR.size(1), ", got ", x_THK.sizes());
  LWM_REQUIRE(x_THK.stride(-1) == 1, "ApplyRope: want the last dim contiguous, got strides ",
              x_THK.strides());
  const int64_t rows = dims == 4 ? x_THK.size(0) : 1, row_stride = dims == 4 ? x_THK.stride(0) : 0;
  const int64_t tokens = x_THK.size(-3), heads = x_THK.size(-2), pairs = table.cos_TR.size(1);
  LWM_REQUIRE(rows * tokens == table.cos_TR.size(0), "ApplyRope: want ", table.cos_TR.size(0),
              " tokens as in the table, got ", x_THK.sizes());
  const float* cosine = table.cos_TR.const_data_ptr<float>();
  const float* sine = table.sin_TR.const_data_ptr<float>();
  const int64_t grain =
      std::max<int64_t>(1, kGrainElements / std::max<int64_t>(1, 2 * heads * pairs));
  DispatchElement(x_THK, [&](auto element) {
    using T = decltype(element);
    T* x = MutableElements<T>(x_THK);
    at::parallel_for(0, rows * tokens, grain, [&](int64_t begin, int64_t end) {
      while (begin < end) {  // one call per row that the range touches
        const int64_t row = begin / tokens, token = begin % tokens;
        const int64_t count = std::min(end - begin, tokens - token);
        const kernels::RopeShape shape{
            static_cast<size_t>(count), static_cast<size_t>(heads), static_cast<size_t>(2 * pairs),
            static_cast<size_t>(x_THK.stride(-3)), static_cast<size_t>(x_THK.stride(-2))};
        kernels::Rope(x + row * row_stride + token * x_THK.stride(-3), shape,
                      cosine + begin * pairs, sine + begin * pairs, inverse);
        begin += count;
      }
    });
  });
}

}  // namespace lwm::ops
