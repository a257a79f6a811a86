#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

#include "lwm/ops/linear_weight.h"

namespace lwm::ops {

template <class Matrix>
struct FeedForwardOf {
  Matrix gate_FD, up_FD, down_DF;
};
using FeedForwardWeights = FeedForwardOf<LinearWeight>;
using FeedForwardGradients = FeedForwardOf<at::Tensor>;  // f32

// gate(x) and up(x) of each slice, which the backward pass then need not compute again.
struct FeedForwardSaved {
  std::vector<at::Tensor> gate_SF, up_SF;  // dtype of x
};

// down(silu(gate(x)) * up(x)) over slices of tokens (blockwise feed-forward, Liu & Abbeel 2023):
// only one slice of width F exists at a time. Up to kGemvRows tokens run as Gemv (gemv.h), and
// silu(gate) * up is then rounded once.
//
//   x_TD          in  f32 or bf16 [T,D], contiguous: the normalised input
//   slice_tokens  in  >= 1 tokens per slice
//   saved         out may be nullptr; two tensors [slice,F] of every slice
//   return y_TD, dtype of x
at::Tensor FeedForward(const at::Tensor& x_TD, const FeedForwardWeights& weights,
                       int64_t slice_tokens, FeedForwardSaved* saved = nullptr);

// Returns dx_TD (dtype of x) and adds to the f32 gradients (same shapes as the weights). Takes gate
// and up from `saved` and frees them slice by slice; recomputes them, to the same bits, where it is
// empty.
at::Tensor FeedForwardBackward(const at::Tensor& dy_TD, const at::Tensor& x_TD,
                               const FeedForwardWeights& weights, int64_t slice_tokens,
                               FeedForwardGradients& gradients, FeedForwardSaved saved = {});

}  // namespace lwm::ops
