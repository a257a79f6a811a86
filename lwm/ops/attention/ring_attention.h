#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/ops/attention/result.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::ops {

struct AttentionGradients {
  at::Tensor dq_BTHK;  // dtype of q
  at::Tensor dk_BTGK, dv_BTGK;
};

// Exact softmax(scale * q k^T) v over the rows that the ranks of view.sp hold together (ring
// attention, Liu et al. 2023). A query sees the keys in its interval [begin, index]; query head h
// uses kv head h / (H / G). A query that sees no key gives out = 0, lse = -inf, zero gradient.
//
//   q_BTHK          in   f32 or bf16 [B,T,H,K]; last two dims contiguous
//   k_BTGK, v_BTGK  in   same dtype  [B,T,G,K], H % G == 0
//   view            in   B rows, T slots
//
// Accuracy: f32 within 5e-6 of the largest entry of the f64 reference (4e-5 when |scores| ~ 100),
// bf16 within 2e-2; 1, 2, 3, 4 ranks differ by f32 rounding (2e-6).
// Memory: with several ranks a packed copy of K and V, and up to two buffers of another rank's; in
// the backward pass up to three more buffers of its gradients in f32; nothing of size T x T.
// Cost: the keys and values that other ranks see make P - 1 hops, overlapped with the tiles.
// Threads: at::parallel_for inside. Collective over view.sp. Throws Error(kInvalidArgument) on
// other shapes or dtypes.
AttentionResult RingAttentionForward(const at::Tensor& q_BTHK, const at::Tensor& k_BTGK,
                                     const at::Tensor& v_BTGK, const SequenceView& view,
                                     double scale);

// Which side goes round the ring in the backward pass: K, V and their gradients (4 G K numbers per
// token), or q, dout, lse, delta and dq (H (3 K + 2)). kLighter: whichever is fewer numbers. The
// results differ by f32 rounding only.
enum class CirculatedSide { kLighter, kKeys, kQueries };

// Gradients for dout_BTHK (dtype and shape of out), given the result of the forward pass. dk and dv
// are summed over the query heads of a group and over all ranks. Same rules as forward.
AttentionGradients RingAttentionBackward(const at::Tensor& dout_BTHK, const at::Tensor& q_BTHK,
                                         const at::Tensor& k_BTGK, const at::Tensor& v_BTGK,
                                         const AttentionResult& forward, const SequenceView& view,
                                         double scale,
                                         CirculatedSide traveller = CirculatedSide::kLighter);

}  // namespace lwm::ops
