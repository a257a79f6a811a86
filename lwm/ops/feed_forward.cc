#include "lwm/ops/feed_forward.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>

#include <algorithm>
#include <utility>

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
  const at::Tensor &gate = weights.gate_FD.dense(), &up = weights.up_FD.dense(),
                   &down = weights.down_DF.dense();
  LWM_REQUIRE(x_TD.dim() == 2 && x_TD.is_contiguous() && gate.dim() == 2 && down.dim() == 2 &&
                  gate.size(1) == x_TD.size(1) && up.sizes() == gate.sizes() &&
                  down.size(0) == gate.size(1) && down.size(1) == gate.size(0),
              op, ": want contiguous x [tokens,dim], gate and up [ffn,dim], down [dim,ffn], got x ",
              x_TD.sizes(), " gate ", gate.sizes(), " up ", up.sizes(), " down ", down.sizes());
  LWM_REQUIRE(slice_tokens >= 1, op, ": want slice_tokens >= 1, got ", slice_tokens);
}

// a = silu(gate) * up; a may be gate.
void Swiglu(const at::Tensor& gate_TF, const at::Tensor& up_TF, at::Tensor& a_TF) {
  DispatchElement(gate_TF, [&](auto element) {
    using T = decltype(element);
    const T *gate = Elements<T>(gate_TF), *up = Elements<T>(up_TF);
    T* a = MutableElements<T>(a_TF);
    at::parallel_for(0, gate_TF.numel(), kGrainElements, [&](int64_t begin, int64_t end) {
      kernels::Swiglu(gate + begin, up + begin, static_cast<size_t>(end - begin), a + begin);
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
                       int64_t slice_tokens, FeedForwardSaved* saved) {
  RequireShapes("FeedForward", x_TD, weights, slice_tokens);
  if (x_TD.size(0) <= kGemvRows && !saved) return FeedForwardOfFewTokens(x_TD, weights);
  at::Tensor y_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < x_TD.size(0); t += slice_tokens) {
    const int64_t count = std::min(slice_tokens, x_TD.size(0) - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count);
    const at::Tensor gate_SF = Linear(x_SD, weights.gate_FD);
    const at::Tensor up_SF = Linear(x_SD, weights.up_FD);
    // In place unless gate is kept: a slice then holds two [slice,F] tensors, not three.
    at::Tensor a_SF = saved ? at::empty_like(gate_SF) : gate_SF;
    Swiglu(gate_SF, up_SF, a_SF);
    at::Tensor y_SD = y_TD.narrow(0, t, count);
    ProductInto(y_SD, a_SF, weights.down_DF.dense().t());
    if (!saved) continue;
    saved->gate_SF.push_back(gate_SF);
    saved->up_SF.push_back(up_SF);
  }
  return y_TD;
}

at::Tensor FeedForwardBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD,
                               const FeedForwardWeights& weights, int64_t slice_tokens,
                               FeedForwardGradients& gradients, FeedForwardSaved saved) {
  RequireShapes("FeedForwardBackward", x_TD, weights, slice_tokens);
  LWM_REQUIRE(dy_TD.sizes() == x_TD.sizes() && dy_TD.scalar_type() == x_TD.scalar_type(),
              "FeedForwardBackward: want dy like x ", x_TD.sizes(), " ", x_TD.scalar_type(),
              ", got ", dy_TD.sizes(), " ", dy_TD.scalar_type());
  RequireGradient("FeedForwardBackward", "gate", gradients.gate_FD,
                  weights.gate_FD.dense().sizes());
  RequireGradient("FeedForwardBackward", "up", gradients.up_FD, weights.up_FD.dense().sizes());
  RequireGradient("FeedForwardBackward", "down", gradients.down_DF,
                  weights.down_DF.dense().sizes());
  // gate and up are the widest activations of a layer: recomputing them per slice, two of its eight
  // products, keeps no [T,F] from the forward pass.
  const bool recompute = saved.gate_SF.empty();
  LWM_CHECK(recompute || saved.gate_SF.size() ==
                             static_cast<size_t>((x_TD.size(0) + slice_tokens - 1) / slice_tokens),
            "FeedForwardBackward: ", saved.gate_SF.size(), " slices were kept of another size");
  at::Tensor dx_TD = at::empty_like(x_TD);
  for (int64_t t = 0; t < x_TD.size(0); t += slice_tokens) {
    const int64_t count = std::min(slice_tokens, x_TD.size(0) - t);
    const at::Tensor x_SD = x_TD.narrow(0, t, count), dy_SD = dy_TD.narrow(0, t, count);
    const auto slice = static_cast<size_t>(t / slice_tokens);
    at::Tensor gate_SF =
        recompute ? Linear(x_SD, weights.gate_FD) : std::exchange(saved.gate_SF[slice], {});
    at::Tensor up_SF =
        recompute ? Linear(x_SD, weights.up_FD) : std::exchange(saved.up_SF[slice], {});
    at::Tensor a_SF = Product(dy_SD, weights.down_DF.dense());
    SwigluBackwardInPlace(a_SF, gate_SF, up_SF);
    AddWeightGradient(dy_SD, a_SF, gradients.down_DF);
    AddWeightGradient(gate_SF, x_SD, gradients.gate_FD);
    AddWeightGradient(up_SF, x_SD, gradients.up_FD);
    at::Tensor dx_SD = dx_TD.narrow(0, t, count);
    ProductInto(dx_SD, gate_SF, weights.gate_FD.dense());
    AddProduct(dx_SD, up_SF, weights.up_FD.dense());
  }
  return dx_TD;
}

}  // namespace lwm::ops
