#pragma once

#include <ATen/core/Tensor.h>

#include <cstddef>
#include <vector>

#include "lwm/base/reserved_memory.h"
#include "lwm/config/model_config.h"

namespace lwm::infer {

// Keys and values of all layers for B rows of the same length. The keys of a (layer, row, kv head)
// are one contiguous run, reserved for the whole capacity; the OS commits pages on first write, so
// nothing is ever copied and memory is that of the tokens written. Tensors that it gives are views
// and die with it. Not for concurrent use.
class KvCache {
 public:
  // For up to `capacity` tokens a row, in f32 or bf16. Throws Error(kResourceExhausted).
  KvCache(const config::ModelConfig& config, int64_t rows, int64_t capacity, at::ScalarType dtype);

  int64_t rows() const { return rows_; }
  int64_t capacity() const { return capacity_; }
  int64_t tokens() const { return tokens_; }  // complete in every layer
  at::ScalarType dtype() const { return dtype_; }

  // Rows of unequal length are padded on the left: row b's own tokens begin at begin_B[b] (i32 [B],
  // undefined = 0 everywhere). Set it while the cache is empty.
  void SetBegin(const at::Tensor& begin_B);
  const at::Tensor& begin_B() const { return begin_B_; }

  // Puts the keys and values of the next T tokens of one layer at [tokens(), tokens() + T).
  //   k_BTGK, v_BTGK  in  cache's dtype [B,T,G,K], contiguous
  // Throws Error(kResourceExhausted) beyond the capacity.
  void Write(int64_t layer, const at::Tensor& k_BTGK, const at::Tensor& v_BTGK);

  // The first `tokens` keys or values of a layer, [B,tokens,G,K] with the layout [B,G,S,K].
  at::Tensor Keys(int64_t layer, int64_t tokens) const { return View(layer, 0, tokens); }
  at::Tensor Values(int64_t layer, int64_t tokens) const { return View(layer, 1, tokens); }

  // All layers have written T more tokens.
  void Advance(int64_t tokens);
  // Forgets all tokens from `tokens` on and gives their memory back.
  void Truncate(int64_t tokens);

 private:
  at::Tensor View(int64_t layer, int64_t which, int64_t tokens) const;
  void CopyIn(int64_t layer, int64_t which, const at::Tensor& x_BTGK);
  std::byte* Run(int64_t layer, int64_t which, int64_t row, int64_t head) const;

  int64_t rows_, capacity_, heads_, head_dim_;
  at::ScalarType dtype_;
  int64_t token_bytes_;  // of one head's key
  int64_t run_bytes_;    // of one (layer, row, head): capacity rounded up to whole pages
  int64_t tokens_ = 0;
  at::Tensor begin_B_;
  std::vector<ReservedMemory> layers_;  // [2 (keys, values), B, G, run]
};

// Bytes of keys and values of one token in all layers.
int64_t KvBytesPerToken(const config::ModelConfig& config, at::ScalarType dtype);

}  // namespace lwm::infer
