#pragma once

#include <cstddef>
#include <cstdint>

namespace lwm::kernels {

// Keys of one tile: its K and V and the next K (24 KB at dim 128 in bf16) fit L1.
inline constexpr size_t kDecodeTileKeys = 32;

// A run of keys and values of one kv head, as rows of `dim` elements: f32, or bf16 as its bits.
template <class Element>
struct DecodeKeys {
  const Element* k = nullptr;  // key n begins at k + n * k_stride
  const Element* v = nullptr;
  size_t keys = 0;
  size_t k_stride = 0, v_stride = 0;  // elements
  // The keys read after these, next_keys rows of stride k_stride: prefetched meanwhile.
  const Element* next_k = nullptr;
  size_t next_keys = 0;
};

// State of the online softmax of each query: largest scaled score (-inf before the first key), sum
// of exp(score - max), and sum of exp(score - max) * v.
struct DecodeState {
  float* max_M;
  float* sum_M;
  float* acc_MK;  // [queries, dim] row-major
};

// state += attention of a few queries over a run of keys, as in a decoding step: the queries of one
// kv head's group. K and V are read from memory once for all queries, in tiles that stay in L1.
//
//   q_MK   in      [queries, dim] row-major
//   state  in/out  disjoint from the inputs
//
// Domain: queries, dim >= 1, keys >= 0, scale finite, any alignment. NaN in a query stays in
// that query.
// Accuracy: relative error of acc / sum below 2^-24 * (64 + 2 * max |score|) of the largest |v|
// against f64 (decode_test.cc).
// Cost: reads 2 * keys * dim elements once; every 4 queries read the tile again from L1. On one
// Sapphire Rapids core, dim 128, bf16: 24 GB/s of K and V for 1 query, 17 for 4, 9 for 8. Threads:
// call on disjoint runs, then MergeDecode.
void DecodeAttention(const float* q_MK, size_t queries, size_t dim, const DecodeKeys<float>& keys,
                     float scale, const DecodeState& state) noexcept;
void DecodeAttention(const uint16_t* q_MK, size_t queries, size_t dim,
                     const DecodeKeys<uint16_t>& keys, float scale,
                     const DecodeState& state) noexcept;

// Sets the state of no key at all.
void ClearDecode(const DecodeState& state, size_t queries, size_t dim) noexcept;

// into += from, as if the keys of both had been seen in one run.
void MergeDecode(const DecodeState& from, size_t queries, size_t dim,
                 const DecodeState& into) noexcept;

}  // namespace lwm::kernels
