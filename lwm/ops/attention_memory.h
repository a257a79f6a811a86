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

// Bytes of ScratchMemory that the kernels of this processor take for packed copies: of queries and
// output gradients in the backward pass, and of keys and values in the forward pass.
double PackedAttentionBytes(const AttentionSize& size);

}  // namespace lwm::ops
