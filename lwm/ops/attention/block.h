#pragma once

#include <ATen/core/Tensor.h>

#include <functional>

namespace lwm::ops {

// One hop of attention: a block of queries against a block of keys. The two passes over the tiles
// are in block_forward.cc and block_backward.cc, the rest in block.cc.

// Running state of the online softmax of B x T queries over the key blocks seen so far, f32. It is
// carried unnormalised across hops, so that the result does not depend on how keys were divided.
struct AttentionCarry {
  at::Tensor max_BHT;   // largest scaled score, -inf before the first key
  at::Tensor sum_BHT;   // sum of exp(score - max)
  at::Tensor acc_BTHK;  // sum of exp(score - max) * v; undefined where sum is 0
};
AttentionCarry MakeAttentionCarry(const at::Tensor& q_BTHK);

// The queries of one block: q and their allowed interval of key indices, [begin, index].
struct QueryBlock {
  at::Tensor q_BTHK;    // f32 or bf16
  at::Tensor index_BT;  // i32; -1 with begin 0: sees nothing
  at::Tensor begin_BT;  // i32
};

// K and V in the layout of our own bf16 forward kernels (AVX512-BF16, AMX), packed once by their
// owner. N tiles of U keys; in each, k and v as AttentionForwardTile::PackKeys writes them.
struct PackedKeys {
  at::Tensor tiles_NBG2UK;  // bf16
  at::Tensor finite_NBG;    // u8: whether all numbers of the tile are finite

  bool defined() const { return tiles_NBG2UK.defined(); }
  int tile_keys() const { return static_cast<int>(tiles_NBG2UK.size(4)); }
};

// Keys with their indices; U keys per row.
struct KeyBlock {
  at::Tensor k_BUGK, v_BUGK;  // dtype of q, last dim contiguous
  at::Tensor index_BU;        // i32; -1: seen by no query
  // If defined, k and v in tiles, all full but the last. The forward pass then ignores k and v
  // above, which may be undefined.
  PackedKeys packed = {};

  int64_t slots() const { return index_BU.size(1); }
  int64_t kv_heads() const {
    return packed.defined() ? packed.tiles_NBG2UK.size(2) : k_BUGK.size(2);
  }
};

// Called on the calling thread between tiles, to let transfers progress; may be empty.
using Progress = std::function<void()>;

// out = acc / sum in the dtype of q [B,T,H,K], lse = max + log(sum) f32 [B,H,T]; 0 and -inf where
// nothing was seen.
struct AttentionOutput {
  at::Tensor out_BTHK, lse_BHT;
};

// A following key block, absorbed if it arrives in time. One pass over both saves reading and
// writing the carry in between; the bits are the same.
struct NextKeys {
  // Called as Progress is. Returns nullptr until the keys are there; they must outlive the call.
  std::function<const KeyBlock*()> arrived;
  AttentionOutput* output = nullptr;  // as the argument of AttentionBlockForward
};

// carry += attention of the queries over these keys. By the extremes of index and begin, pairs of
// tiles are skipped, computed without a mask or compared element by element. Threads over (row,
// head, query tile). Allocates tiles per thread and a packed copy of keys, two with `next`, each of
// at most 64 MiB, or of one tile of every row and kv head where that is more.
//   output  nullptr, or, with the last keys, receives the result. Saves a pass over carry.acc; it
//           is undefined afterwards.
//   next    nullptr, or keys that may be taken as well
// Returns whether the next keys were taken.
bool AttentionBlockForward(const QueryBlock& queries, const KeyBlock& keys, double scale,
                           AttentionCarry& carry, const Progress& progress,
                           AttentionOutput* output = nullptr, const NextKeys* next = nullptr);

// The output of a carry.
void FinishAttention(const AttentionCarry& carry, at::ScalarType dtype, at::Tensor& out_BTHK,
                     at::Tensor& lse_BHT);

// Queries as the backward pass reads them, with dout (dtype of q), lse, and
// delta = rowsum(dout * out) in f32.
struct QueryGradientBlock {
  QueryBlock queries;
  at::Tensor dout_BTHK;
  at::Tensor lse_BHT, delta_BHT;
};
at::Tensor AttentionDelta(const at::Tensor& dout_BTHK, const at::Tensor& out_BTHK);  // f32 [B,H,T]

// Sums of gradients, f32: dq like q, dk and dv like k.
struct AttentionGradientSums {
  at::Tensor dq_BTHK, dk_BUGK, dv_BUGK;
};

struct AttentionGradientOptions {
  // Set dq, or dk and dv, instead of adding to them: they are uninitialised.
  bool set_queries = false, set_keys = false;
  // Undefined, or like q, or k: receives the rounded gradient, when nothing is added after this
  // call. dq, or dk and dv, are undefined afterwards. Saves most of their memory traffic.
  at::Tensor rounded_dq_BTHK = {}, rounded_dk_BUGK = {}, rounded_dv_BUGK = {};
};

// A following block of queries, absorbed if it arrives in time, and its gradient, which is set. One
// pass over both saves reading and writing dk and dv in between; the bits are the same.
struct ArrivedQueries {
  QueryGradientBlock queries;
  at::Tensor dq_BTHK;
};
struct NextQueries {
  // Called as Progress is. Returns nullptr until the queries are there; they must outlive the call.
  std::function<const ArrivedQueries*()> arrived;
  at::Tensor rounded_dk_BUGK = {}, rounded_dv_BUGK = {};  // as AttentionGradientOptions
};

// Adds this block pair's gradients to the sums, bit-identical for any number of threads.
//   next  nullptr, or queries that may be taken as well
// Returns whether the next queries were taken.
bool AttentionBlockBackward(const QueryGradientBlock& queries, const KeyBlock& keys, double scale,
                            const AttentionGradientSums& sums, const Progress& progress,
                            const AttentionGradientOptions& options = {},
                            const NextQueries* next = nullptr);

}  // namespace lwm::ops
