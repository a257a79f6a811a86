#pragma once

#include <ATen/core/Tensor.h>

#include <vector>

namespace lwm::ops {

// cos and sin of position * inverse_frequency, already multiplied by the attention factor.
struct RopeTable {
  at::Tensor cos_TR;  // f32 [tokens, K/2]
  at::Tensor sin_TR;  // f32 [tokens, K/2]
};

// Angles in f64, table in f32 (bf16 angles are off by radians beyond 256 tokens).
//   position_T    in  i32 or i64, flattened to [tokens]; positions may restart (packing)
//   inverse_frequency_R  in  K/2 values
RopeTable MakeRopeTable(const at::Tensor& position_T,
                        const std::vector<double>& inverse_frequency_R, double attention_factor);

// Rotates the pairs (i, i + K/2) of every head in place (Hugging Face's half-split layout).
//   x_THK  in-out  f32 or bf16 [T,H,K] or [B,T,H,K] with B*T == tokens; contiguous in the last dim
//   inverse        rotate back: the backward pass (multiplies by the attention factor again, as the
//                  transpose does)
void ApplyRope(at::Tensor& x_THK, const RopeTable& table, bool inverse);

}  // namespace lwm::ops
