#pragma once

#include <ATen/core/Tensor.h>

namespace lwm::ops {

// The keys and values of every token so far. Key s has absolute position s.
struct CachedKeys {
  at::Tensor k_BSGK, v_BSGK;  // any strides in B, S and G, last dim contiguous
  at::Tensor begin_B = {};    // i32 first key that row b may see (left padding); undefined: 0
};

// Attention of new queries over a key-value cache on this rank: the whole prompt at once (prefill),
// a chunk of it, or one token (decode; K and V are then read once for all H / G query heads of a
// group).
//
//   q_BTHK  in   f32 or bf16 [B,T,H,K]; the query at position t has absolute position
//                offset + t
//   keys    in   dtype of q; the new tokens' keys are already in it: S >= offset + T
//   causal  in   false: every query sees all S keys
//   return  out_BTHK, dtype of q; 0 where no key is seen. lse_BHT (f32) is filled when not null.
//
// Accuracy as RingAttention. Memory: O(T) scratch, and O(B S) indices when T H / G > 16.
// Threads: over (B, G, key ranges); the result does not depend on their number.
// Throws Error(kInvalidArgument) on other shapes, dtypes or layouts.
at::Tensor CachedAttention(const at::Tensor& q_BTHK, const CachedKeys& keys, int64_t offset,
                           bool causal, double scale, at::Tensor* lse_BHT = nullptr);

}  // namespace lwm::ops
