#include "lwm/ops/attention/block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <limits>

#include "lwm/base/error.h"
#include "lwm/kernels/tile_layout.h"
#include "lwm/ops/attention/tiling.h"

namespace lwm::ops {
namespace {

constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

kernels::TileType TypeOf(at::ScalarType dtype) {
  LWM_REQUIRE(dtype == at::kFloat || dtype == at::kBFloat16,
              "attention: the type must be f32 or bf16, got ", dtype);
  return dtype == at::kFloat ? kernels::TileType::kF32 : kernels::TileType::kBF16;
}

// Calls fn(row in [B,T,H], the same query in [B,H,T]) for every query, on all threads.
template <class Fn>
void ForEachQuery(at::IntArrayRef shape_BTH, const Fn& fn) {
  const int64_t tokens = shape_BTH[1], heads = shape_BTH[2];
  at::parallel_for(0, shape_BTH[0] * tokens, 64, [&](int64_t first, int64_t last) {
    for (int64_t bt = first; bt < last; ++bt) {
      for (int64_t h = 0; h < heads; ++h) {
        fn(bt * heads + h, (bt / tokens * heads + h) * tokens + bt % tokens);
      }
    }
  });
}

}  // namespace

// acc is not cleared: a sum of 0 says that it holds nothing yet, so its memory is first touched
// when it is written.
AttentionCarry MakeAttentionCarry(const at::Tensor& q_BTHK) {
  const int64_t batch = q_BTHK.size(0), tokens = q_BTHK.size(1), heads = q_BTHK.size(2);
  const auto f32 = at::TensorOptions(at::kFloat);
  return {at::full({batch, heads, tokens}, kMinusInfinity, f32),
          at::zeros({batch, heads, tokens}, f32),
          at::empty({batch, tokens, heads, q_BTHK.size(3)}, f32)};
}

void FinishAttention(const AttentionCarry& carry, at::ScalarType dtype, at::Tensor& out_BTHK,
                     at::Tensor& lse_BHT) {
  const kernels::TileType type = TypeOf(dtype);
  out_BTHK = at::empty(carry.acc_BTHK.sizes(), at::TensorOptions(dtype));
  lse_BHT = at::empty(carry.max_BHT.sizes(), at::TensorOptions(at::kFloat));
  const int dim = static_cast<int>(carry.acc_BTHK.size(3));
  const int64_t row_bytes = dim * out_BTHK.element_size();
  const float* acc = carry.acc_BTHK.const_data_ptr<float>();
  const float* max = carry.max_BHT.const_data_ptr<float>();
  const float* sum = carry.sum_BHT.const_data_ptr<float>();
  char* out = static_cast<char*>(out_BTHK.mutable_data_ptr());
  float* lse = lse_BHT.mutable_data_ptr<float>();
  ForEachQuery(out_BTHK.sizes(), [&](int64_t row, int64_t stat) {
    lse[stat] =
        FinishQuery(type, dim, acc + row * dim, max[stat], sum[stat], out + row * row_bytes);
  });
}

// Once per query, here, and not once per tile: every pair of tiles of the backward pass subtracts
// it.
at::Tensor AttentionDelta(const at::Tensor& dout_BTHK, const at::Tensor& out_BTHK) {
  LWM_REQUIRE(dout_BTHK.sizes() == out_BTHK.sizes() && dout_BTHK.dim() == 4 &&
                  dout_BTHK.scalar_type() == out_BTHK.scalar_type(),
              "attention: dout must be like out, ", out_BTHK.scalar_type(), " ", out_BTHK.sizes(),
              ", got ", dout_BTHK.scalar_type(), " ", dout_BTHK.sizes());
  const kernels::TileType type = TypeOf(out_BTHK.scalar_type());
  const at::Tensor dout = dout_BTHK.contiguous(), out = out_BTHK.contiguous();
  at::Tensor delta_BHT = at::empty({out.size(0), out.size(2), out.size(1)}, at::kFloat);
  const int dim = static_cast<int>(out.size(3));
  const int64_t row_bytes = dim * out.element_size();
  const char* x = static_cast<const char*>(dout.const_data_ptr());
  const char* y = static_cast<const char*>(out.const_data_ptr());
  float* delta = delta_BHT.mutable_data_ptr<float>();
  ForEachQuery(out.sizes(), [&](int64_t row, int64_t stat) {
    delta[stat] = kernels::DotRows(type, x + row * row_bytes, y + row * row_bytes, dim);
  });
  return delta_BHT;
}

}  // namespace lwm::ops
