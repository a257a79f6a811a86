#pragma once

#include <ATen/core/Tensor.h>

#include <utility>

namespace lwm::ops {

// A matrix [R,C] that activations [T,C] are multiplied by. How it is stored is known here and to
// the operations that take it; everyone else passes it on. Copies share the memory.
class LinearWeight {
 public:
  LinearWeight() = default;
  // f32 or bf16.
  LinearWeight(at::Tensor w_RC) : w_RC_(std::move(w_RC)) {}  // NOLINT: a dense matrix is one

  bool defined() const { return w_RC_.defined(); }
  int64_t rows() const { return w_RC_.size(0); }
  int64_t cols() const { return w_RC_.size(1); }
  // Of the activations that it multiplies.
  at::ScalarType dtype() const { return w_RC_.scalar_type(); }

  // The matrix itself: for operations of ops, and for code that loads, shards, casts or saves
  // weights.
  const at::Tensor& dense() const { return w_RC_; }
  at::Tensor& dense() { return w_RC_; }

 private:
  at::Tensor w_RC_;
};

}  // namespace lwm::ops
