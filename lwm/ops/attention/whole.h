#pragma once

#include <ATen/core/Tensor.h>

#include "lwm/dist/communicator.h"

namespace lwm::ops {

// Attention as PyTorch's scaled_dot_product_attention states it, over tensors that every rank has
// as a whole.
//
//   q_BHTK            f32 or bf16 [B,H,T,K]; query t has absolute position offset + t
//   k_BGSK, v_BGSK    same dtype  [B,G,S,K], H % G == 0
//   segment_BS        integers [B,S], or undefined for one segment; a query sees the keys of its
//   own
//                     segment only. Equal ids must be neighbours. Wants offset + T <= S.
//   causal            a query sees no key after its position
//   dout_BHTK         dtype of q, or undefined for no gradients
struct WholeAttention {
  at::Tensor q_BHTK, k_BGSK, v_BGSK, segment_BS, dout_BHTK;
  bool causal = true;
  double scale = 1;
  int64_t offset = 0;
};

struct WholeAttentionResult {
  at::Tensor out_BHTK;                   // f32
  at::Tensor lse_BHT;                    // f32, -inf where no key is seen
  at::Tensor dq_BHTK, dk_BGSK, dv_BGSK;  // f32, undefined without dout
};

// Computed by all ranks of the group together, the same on all of them: self-attention over the
// ring, anything else with the keys divided and the queries everywhere. Accuracy as
// RingAttention. Collective; nullptr is one rank. Throws Error(kInvalidArgument) on other
// shapes or dtypes and on a segment id that recurs.
WholeAttentionResult AttendWhole(const WholeAttention& problem, dist::Communicator* group);

}  // namespace lwm::ops
