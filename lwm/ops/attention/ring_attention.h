#pragma once

#include <ATen/core/Tensor.h>

#include <memory>

#include "lwm/ops/attention/result.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::ops {

class Ring;

// Queries, keys and values of one layer: f32 or bf16, all alike; last two dims contiguous; H % G
// == 0. Query head h uses kv head h / (H / G).
struct Qkv {
  at::Tensor q_BTHK, k_BTGK, v_BTGK;
};

struct AttentionGradients {
  at::Tensor dq_BTHK;  // dtype of q
  at::Tensor dk_BTGK, dv_BTGK;
};

// Which side goes round the ring in the backward pass: K, V and their gradients (4 G K numbers per
// token), or q, dout, lse, delta and dq (H (3 K + 2)). kLighter: whichever is fewer numbers. The
// results differ by f32 rounding only.
enum class CirculatedSide { kLighter, kKeys, kQueries };

// Exact softmax(scale * q k^T) v over the rows that the ranks of view.sp hold together (ring
// attention, Liu et al. 2023). A query sees the keys in its interval [begin, index]. A query that
// sees no key gives out = 0, lse = -inf, zero gradient.
//
// One object serves all layers of a batch and both passes: which slots each rank needs of which
// other is found when it is made, in a pass over the slots of all ranks.
//
// Accuracy: f32 within 5e-6 of the largest entry of the f64 reference (4e-5 when |scores| ~ 100),
// bf16 within 2e-2; 1, 2, 3, 4 ranks differ by f32 rounding (2e-6).
// Memory: with several ranks a packed copy of K and V, and up to two buffers of another rank's; in
// the backward pass up to three more buffers of its gradients in f32; nothing of size T x T.
// Cost: the keys and values that other ranks see make P - 1 hops, overlapped with the tiles.
// Threads: at::parallel_for inside. Both passes are collective over view.sp and throw
// Error(kInvalidArgument) on other shapes or dtypes.
class RingAttention {
 public:
  // B rows, T slots; view.sp must outlive the object.
  explicit RingAttention(const SequenceView& view);
  ~RingAttention();

  AttentionResult Forward(const Qkv& qkv, double scale) const;
  // Gradients for dout_BTHK (dtype and shape of out), given the result of the forward pass. dk and
  // dv are summed over the query heads of a group and over all ranks.
  AttentionGradients Backward(const at::Tensor& dout_BTHK, const Qkv& qkv,
                              const AttentionResult& forward, double scale,
                              CirculatedSide circulated = CirculatedSide::kLighter) const;

 private:
  const std::unique_ptr<const Ring> forward_, backward_;
  const at::Tensor single_BT_;  // bool: the query sees its own token only
};

}  // namespace lwm::ops
