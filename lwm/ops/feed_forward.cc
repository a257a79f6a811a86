#include "lwm/ops/feed_forward.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>

#include "lwm/base/error.h"
#include "lwm/kernels/elementwise/swiglu.h"
#include "lwm/ops/element.h"
#include "lwm/ops/gemv.h"
#include "lwm/ops/linear.h"
#include "lwm/ops/product.h"

namespace lwm::ops {
namespace {

// Elements below which another thread costs more than it saves.
constexpr int64_t kGrainElements = 1 << 15;

void RequireShapes(const char* op, const at::Tensor& x_TD, const FeedForwardWeights& weights,
                   int64_t slice_tokens) {
  RequireFloatOrBf16(op, "x", x_TD);
  const at::Tensor &gate = weights.gate_FD, &up = weights.up_FD, &down = weights.down_DF;
  LWM_REQUIRE(x_TD.dim() == 2 && x_TD.is_contiguous() && gate.dim() == 2 && down.dim() == 2 &&
                  gate.size(1) == x_TD.size(1) && up.sizes() == gate.sizes() &&
                  down.size(0) == gate.size(1) && down.size(1) == gate.size(0),
              op, ": want contiguous x [tokens,dim], gate and up [ffn,dim], down [dim,ffn], got x ",
              x_TD.sizes(), " gate ", gate.sizes(), " up ", up.sizes(), " down ", down.sizes());
  LWM_REQUIRE(slice_tokens >= 1, op, ": want slice_tokens >= 1, got ", slice_tokens);
}

// Turns gate into a = silu(gate) * up.
void SwigluInPlace(at::Tensor& gate_TF, const at::Tensor& up_TF) {
  DispatchElement(gate_TF, [&](auto element) {
    using T = decltype(element);
    T* gate = MutableElements<T>(gate_TF);
    const T* up = Elements<T>(up_TF);
    at::parallel_for(0, gate_TF.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::Swiglu(gate + begin, up + begin, static_cast<size_t>(end - begin), gate + begin);
    });
  });
}

// Turns (da, gate, up) into (a, dgate, dup).
void SwigluBackwardInPlace(at::Tensor& da_TF, at::Tensor& gate_TF, at::Tensor& up_TF) {
  DispatchElement(gate_TF, [&](auto element) {
    using T = decltype(element);
    T *da = MutableElements<T>(da_TF), *gate = MutableElements<T>(gate_TF);
    T* up = MutableElements<T>(up_TF);
    at::parallel_for(0, gate_TF.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::SwigluBackward(da + begin, gate + begin, up + begin,
                              static_cast<size_t>(end - begin));
    });
  });
}

// A decoding step. Gate and up share one parallel region, and their product stays in f32 until it
// is rounded once for the last matrix.
at::Tensor FeedForwardOfFewTokens(const at::Tensor& x_TD, const FeedForwardWeights& weights) {
  const auto gate_up_TF = GemvEach(x_TD, {weights.gate_FD, weights.up_FD}, at::kFloat);
  const at::Tensor inner_TF = at::silu(gate_up_TF[0]).mul_(gate_up_TF[1]).to(x_TD.scalar_type());
  return Gemv(inner_TF, weights.down_DF, x_TD.scalar_type());
}

}  // namespace

at::Tensor FeedForward(const at::Tensor& x_TD, const FeedForwardWeights& weights,
                       int64_t slice_tokens) {
  RequireShapes("FeedForward", x_TD, weights, slice_tokens);
  if (x_TD.size(0) <= kGemvRows) return FeedForwardOfFewTokens(x_TD, weights);
  // gate becomes silu(gate) * up in place: a slice holds two [slice, F] tensors, not three.
  at::Tensor y_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < x_TD.size(0); t += slice_tokens) {
    const int64_t count = std::min(slice_tokens, x_TD.size(0) - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count);
    at::Tensor gate_SF = Linear(x_SD, weights.gate_FD);
    const at::Tensor up_SF = Linear(x_SD, weights.up_FD);
    SwigluInPlace(gate_SF, up_SF);
    at::Tensor y_SD = y_TD.narrow(0, t, count);
    ProductInto(y_SD, gate_SF, weights.down_DF.t());
  }
  return y_TD;
}

at::Tensor FeedForwardBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD,
                               const FeedForwardWeights& weights, int64_t slice_tokens,
                               FeedForwardWeights& gradients) {
  RequireShapes("FeedForwardBackward", x_TD, weights, slice_tokens);
  LWM_REQUIRE(dy_TD.sizes() == x_TD.sizes() && dy_TD.scalar_type() == x_TD.scalar_type(),
              "FeedForwardBackward: want dy like x ", x_TD.sizes(), " ", x_TD.scalar_type(),
              ", got ", dy_TD.sizes(), " ", dy_TD.scalar_type());
  RequireGradient("FeedForwardBackward", "gate", gradients.gate_FD, weights.gate_FD.sizes());
  RequireGradient("FeedForwardBackward", "up", gradients.up_FD, weights.up_FD.sizes());
  RequireGradient("FeedForwardBackward", "down", gradients.down_DF, weights.down_DF.sizes());
  // Recomputes gate and up per slice, two of its eight products, instead of keeping [T,F] from the
  // forward pass, the widest activations of the layer.
  at::Tensor dx_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < x_TD.size(0); t += slice_tokens) {
    const int64_t count = std::min(slice_tokens, x_TD.size(0) - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count), dy_SD = dy_TD.narrow(0, t, count);
    at::Tensor gate_SF = Linear(x_SD, weights.gate_FD);
    at::Tensor up_SF = Linear(x_SD, weights.up_FD);
    at::Tensor a_SF = Product(dy_SD, weights.down_DF);
    SwigluBackwardInPlace(a_SF, gate_SF, up_SF);
    AddWeightGradient(dy_SD, a_SF, gradients.down_DF);
    AddWeightGradient(gate_SF, x_SD, gradients.gate_FD);
    AddWeightGradient(up_SF, x_SD, gradients.up_FD);
    at::Tensor dx_SD = dx_TD.narrow(0, t, count);
    ProductInto(dx_SD, gate_SF, weights.gate_FD);
    AddProduct(dx_SD, up_SF, weights.up_FD);
  }
  return dx_TD;
}

}  // namespace lwm::ops
