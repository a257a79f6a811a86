#pragma once

#include <cstdint>
#include <filesystem>

#include "lwm/io/mapped_source.h"

namespace lwm::io {

// The header of a llama2.c model.
struct Llama2cHeader {
  int64_t dim = 0, hidden_dim = 0, layers = 0, heads = 0, kv_heads = 0, vocab_size = 0;
  int64_t max_tokens = 0;
  bool shared_classifier = false;
  bool versioned = false;  // version 1 ("ak42"), not the first form without a magic number
};

// A llama2.c export in f32: the first form (a header of seven int32, stacked tensors, rotary
// tables) or version 1. Both are recognised by a file size that fits the header exactly.
bool IsLlama2c(const std::filesystem::path& path);

// Tensors are named as in llama2.c's program and stacked over layers: token_embedding_table [V,D],
// rms_att_weight [L,D], wq [L,H*K,D], wk, wv, wo [L,D,H*K], rms_ffn_weight, w1 [L,F,D], w2 [L,D,F],
// w3, rms_final_weight [D], freq_cis_real and freq_cis_imag [tokens,K/2] (first form), wcls [V,D]
// (unless shared). Query and key rows are adjacent pairs.
class Llama2cSource final : public MappedSource {
 public:
  // Throws Error(kCorruptData) when the file is not such an export.
  explicit Llama2cSource(const std::filesystem::path& path);

  std::string_view format() const override { return "llama2c"; }
  const Llama2cHeader& header() const { return header_; }

 private:
  Llama2cHeader header_;
};

}  // namespace lwm::io
