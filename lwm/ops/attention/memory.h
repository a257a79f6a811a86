#pragma once

#include <c10/core/ScalarType.h>

#include <cstdint>

namespace lwm::ops {

// Attention over `tokens` tokens that one rank holds.
struct AttentionSize {
  at::ScalarType dtype;  // f32 or bf16
  double tokens, heads, kv_heads;
  int64_t head_dim;
};

// Bytes of ScratchMemory for packed copies with this processor's kernels: queries and output
// gradients in the backward pass, plus keys and values in the forward pass.
double PackedAttentionBytes(const AttentionSize& size);

}  // namespace lwm::ops
