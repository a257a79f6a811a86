#include "lwm/ops/attention/ring_attention.h"

#include <ATen/ATen.h>

#include <algorithm>
#include <limits>
#include <optional>
#include <utility>

#include "lwm/base/error.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/ring.h"
#include "lwm/ops/attention/ring_transfer.h"
#include "lwm/ops/scratch_memory.h"

namespace lwm::ops {
namespace {

void CheckArguments(const Qkv& qkv, const SequenceView& view) {
  const auto& [q_BTHK, k_BTGK, v_BTGK] = qkv;
  LWM_REQUIRE(q_BTHK.dim() == 4 && k_BTGK.dim() == 4 && v_BTGK.sizes() == k_BTGK.sizes() &&
                  q_BTHK.size(0) == k_BTGK.size(0) && q_BTHK.size(1) == k_BTGK.size(1) &&
                  q_BTHK.size(3) == k_BTGK.size(3),
              "attention: want q [B,T,H,K] and k, v [B,T,G,K], got q ", q_BTHK.sizes(), " k ",
              k_BTGK.sizes(), " v ", v_BTGK.sizes());
  LWM_REQUIRE(k_BTGK.size(2) > 0 && q_BTHK.size(2) % k_BTGK.size(2) == 0,
              "attention: ", q_BTHK.size(2), " query heads do not divide into ", k_BTGK.size(2),
              " kv heads; want a multiple");
  const at::ScalarType dtype = q_BTHK.scalar_type();
  LWM_REQUIRE((dtype == at::kFloat || dtype == at::kBFloat16) && k_BTGK.scalar_type() == dtype &&
                  v_BTGK.scalar_type() == dtype,
              "attention: want q, k, v all f32 or all bf16, got ", dtype, ", ",
              k_BTGK.scalar_type(), ", ", v_BTGK.scalar_type());
  for (const at::Tensor* x : {&q_BTHK, &k_BTGK, &v_BTGK}) {
    LWM_REQUIRE(x->stride(3) == 1 && x->stride(2) == x->size(3),
                "attention: want heads and head dim contiguous, got strides ", x->strides());
  }
  LWM_REQUIRE(view.rows() == q_BTHK.size(0) && view.tokens() == q_BTHK.size(1),
              "attention: the view has ", view.rows(), " rows of ", view.tokens(), " slots, q is ",
              q_BTHK.sizes());
  LWM_REQUIRE(view.ranks() == (view.sp ? view.sp->size() : 1), "attention: a view over ",
              view.ranks(), " ranks in a group of ", view.sp ? view.sp->size() : 1);
}

// f32, uninitialised: the first hop sets them. Sums stay in f32 over all hops and are rounded to
// the dtype after the last: rounding at every hop would make the error grow with P. Sums that end
// in another dtype are dropped after that, so they live in scratch memory.
AttentionGradientSums MakeGradientSums(const at::Tensor& q_BTHK, const at::Tensor& k_BTGK) {
  const bool rounds = q_BTHK.scalar_type() != at::kFloat;
  const auto make = [&](const at::Tensor& like) {
    return rounds ? ScratchTensor(like.sizes(), at::kFloat)
                  : at::empty(like.sizes(), like.options());
  };
  return {make(q_BTHK), make(k_BTGK), make(k_BTGK)};
}

// Receives a rounded gradient at the last hop; undefined in f32, where the sum is the result.
at::Tensor MakeRounded(const at::Tensor& like) {
  if (like.scalar_type() == at::kFloat) return {};
  return at::empty(like.sizes(), like.options());
}

at::Tensor Result(const at::Tensor& rounded, const at::Tensor& sum) {
  return rounded.defined() ? rounded : sum;
}

// No transfers: one block pair, which rounds its gradients as it stores them.
AttentionGradients BackwardAlone(const Ring& ring, const QueryGradientBlock& queries,
                                 const KeyBlock& keys, double scale,
                                 const AttentionGradientSums& sums) {
  const AttentionGradientOptions options{.set_queries = true,
                                         .set_keys = true,
                                         .rounded_dq_BTHK = MakeRounded(queries.dout_BTHK),
                                         .rounded_dk_BUGK = MakeRounded(keys.k_BUGK),
                                         .rounded_dv_BUGK = MakeRounded(keys.v_BUGK)};
  const AttentionGradients gradients{Result(options.rounded_dq_BTHK, sums.dq_BTHK),
                                     Result(options.rounded_dk_BUGK, sums.dk_BUGK),
                                     Result(options.rounded_dv_BUGK, sums.dv_BUGK)};
  if (ring.IsSeen(0)) {
    AttentionBlockBackward(queries, keys, scale, sums, {}, options);
  } else {
    for (const at::Tensor& x : {gradients.dq_BTHK, gradients.dk_BTGK, gradients.dv_BTGK}) x.zero_();
  }
  return gradients;
}

// K and V travel, their gradients follow one hop behind; queries and dq stay. While a hop's tiles
// are computed, the next K, V arrive and the sum of the hop before leaves.
AttentionGradients BackwardOverKeys(const Ring& ring, const QueryGradientBlock& queries,
                                    const KeyBlock& keys, double scale,
                                    const AttentionGradientSums& gradients) {
  const auto& slots_P = ring.slots().keys_P;
  TravellingSum sum(ring.group(), {{gradients.dk_BUGK}, {gradients.dv_BUGK}}, slots_P);
  {
    TravellingBundle bundle(ring.group(), {{keys.k_BUGK}, {keys.v_BUGK}}, slots_P);
    const Progress progress = [&] {
      bundle.Progress();
      sum.Progress();
    };
    // Each hop fills a fresh part dkv, which End adds to the sum that has travelled so far: the
    // tiles need not wait for that sum to arrive.
    for (int hop = 0; hop < ring.hops(); ++hop) {
      const auto& kv = bundle.Arrive(hop);
      auto& dkv = sum.Begin(hop);
      const int owner = ring.Owner(hop);
      if (ring.SeesKeys(hop)) {
        AttentionBlockBackward(queries, ring.Keys(owner, kv[0], kv[1]), scale,
                               {gradients.dq_BTHK, dkv[0], dkv[1]}, progress,
                               {.set_queries = hop == 0, .set_keys = true});
      } else {
        // The part still travels: other ranks have added to it, or will.
        if (hop == 0) gradients.dq_BTHK.zero_();
        for (at::Tensor& part : dkv) part.zero_();
      }
      sum.End(hop);
    }
  }  // frees the bundle's buffers before the last of the sum arrives
  sum.Finish();
  const at::ScalarType dtype = keys.k_BUGK.scalar_type();
  return {gradients.dq_BTHK.to(dtype), gradients.dk_BUGK.to(dtype), gradients.dv_BUGK.to(dtype)};
}

// Queries travel with dout, lse and delta, and dq follows one hop behind; K, V, dk and dv stay. dk
// and dv are complete at the last hop that has queries for them, and are rounded there.
AttentionGradients BackwardOverQueries(const Ring& ring, const QueryGradientBlock& queries,
                                       const KeyBlock& keys, double scale,
                                       const AttentionGradientSums& sums) {
  const auto& slots_P = ring.slots().queries_P;
  const at::Tensor rounded_dk = MakeRounded(keys.k_BUGK), rounded_dv = MakeRounded(keys.v_BUGK);
  TravellingSum sum(ring.group(), {{sums.dq_BTHK}}, slots_P);
  {
    TravellingBundle bundle(ring.group(),
                            {{queries.queries.q_BTHK},
                             {queries.dout_BTHK},
                             {queries.lse_BHT, /*slot_dim=*/2},
                             {queries.delta_BHT, /*slot_dim=*/2}},
                            slots_P);
    const Progress progress = [&] {
      bundle.Progress();
      sum.Progress();
    };
    const auto of_hop = [&](int hop, const std::vector<at::Tensor>& q) {
      return QueryGradientBlock{ring.Queries(ring.Owner(hop), q[0]), q[1], q[2], q[3]};
    };
    const int last = ring.LastQueries();
    bool keys_set = false, taken = false;  // taken: with the queries of the hop before
    for (int hop = 0; hop < ring.hops(); ++hop) {
      const auto& q = bundle.Arrive(hop);
      if (std::exchange(taken, false)) {  // computed already, in the pass of the hop before
        sum.End(hop);
        continue;
      }
      auto& dq = sum.Begin(hop);
      if (!ring.IsSeen(hop)) {
        dq[0].zero_();
        sum.End(hop);
        continue;
      }
      // The next hop's queries join this hop's pass if they arrive during it, which saves a pass
      // over dk and dv. Their dq needs its buffer: not before the part of two hops ago has left it,
      // since waiting for that here would hold up the tiles.
      std::optional<ArrivedQueries> coming;
      NextQueries next{[&]() -> const ArrivedQueries* {
        const auto* next_q = coming || !sum.CanBegin(hop + 1) ? nullptr : bundle.Next();
        if (next_q) coming = {of_hop(hop + 1, *next_q), sum.Begin(hop + 1)[0]};
        return coming ? &*coming : nullptr;
      }};
      AttentionGradientOptions options{.set_queries = true, .set_keys = !keys_set};
      if (hop == last) {
        options.rounded_dk_BUGK = rounded_dk;
        options.rounded_dv_BUGK = rounded_dv;
      } else if (hop + 1 == last) {
        next.rounded_dk_BUGK = rounded_dk;
        next.rounded_dv_BUGK = rounded_dv;
      }
      taken =
          AttentionBlockBackward(of_hop(hop, q), keys, scale, {dq[0], sums.dk_BUGK, sums.dv_BUGK},
                                 progress, options, ring.IsSeen(hop + 1) ? &next : nullptr);
      keys_set = true;
      sum.End(hop);
    }
    // No query of any rank saw these keys.
    if (!keys_set) {
      Result(rounded_dk, sums.dk_BUGK).zero_();
      Result(rounded_dv, sums.dv_BUGK).zero_();
    }
  }  // frees the bundle's buffers before the last of the sum arrives
  sum.Finish();
  return {sums.dq_BTHK.to(keys.k_BUGK.scalar_type()), Result(rounded_dk, sums.dk_BUGK),
          Result(rounded_dv, sums.dv_BUGK)};
}

// Queries that see only their own token: the first of each segment. Their weight is 1 whatever the
// scores are, so dq = 0 and dv += dout exactly. Computed like the others, dq would be the rounding
// error of dp - delta. The backward pass hides them from the tiles and adds their dv at the end.
at::Tensor SingleTokenSegments(const SequenceView& view) {
  return view.begin_PBT == view.index_PBT;
}

SequenceView WithoutSingleTokens(SequenceView view) {
  view.begin_PBT = view.begin_PBT + SingleTokenSegments(view).to(at::kInt);  // an empty interval
  return view;
}

void AddSingleTokens(const at::Tensor& single_BT, const at::Tensor& dout_BTHK,
                     at::Tensor& dv_BTGK) {
  const at::Tensor place_N2 = at::nonzero(single_BT);
  const at::Tensor row_N = place_N2.select(1, 0), slot_N = place_N2.select(1, 1);
  const at::Tensor dout_NHK = dout_BTHK.index({row_N, slot_N}).to(at::kFloat);
  const int64_t kv_heads = dv_BTGK.size(2), head_dim = dv_BTGK.size(3);
  const at::Tensor dv_NGK =
      dout_NHK.view({-1, kv_heads, dout_BTHK.size(2) / kv_heads, head_dim}).sum(2).to(dv_BTGK);
  dv_BTGK.index_put_({row_N, slot_N}, dv_NGK, /*accumulate=*/true);
}

// Compares the numbers that travel per token and hop. With few kv heads, K and V are lighter.
bool QueriesAreLighter(int64_t heads, int64_t kv_heads, int64_t head_dim) {
  return heads * (3 * head_dim + 2) < 4 * kv_heads * head_dim;
}

}  // namespace

RingAttention::RingAttention(const SequenceView& view)
    : forward_(std::make_unique<Ring>(view, FindRingSlots(view))),
      backward_(std::make_unique<Ring>(WithoutSingleTokens(view), forward_->slots())),
      single_BT_(SingleTokenSegments(view)[view.rank()]) {}
RingAttention::~RingAttention() = default;

AttentionResult RingAttention::Forward(const Qkv& qkv, double scale) const {
  const Ring& ring = *forward_;
  CheckArguments(qkv, ring.view());
  const auto& [q_BTHK, k_BTGK, v_BTGK] = qkv;
  const QueryBlock queries = ring.Queries(ring.rank(), q_BTHK);
  AttentionCarry carry = MakeAttentionCarry(q_BTHK);
  if (ring.hops() > 1) carry.acc_BTHK = ScratchTensor(q_BTHK.sizes(), at::kFloat);
  // Starts no transfer yet: Arrive(0) posts the first transfer, before the tiles of own keys.
  AttentionOutput output;
  TravellingKeys travelling(ring, queries, k_BTGK, v_BTGK);
  const Progress progress = [&] { travelling.Progress(); };
  const int last = ring.LastKeys();
  bool taken = false;  // with the keys of the hop before
  for (int hop = 0; hop < ring.hops(); ++hop) {
    // Waits for this hop's keys and posts the transfer of the next, even if these keys are skipped:
    // the ranks after this one need them. Own keys come first, since they need no transfer.
    const KeyBlock keys = travelling.Arrive(hop);
    if (std::exchange(taken, false) || !ring.SeesKeys(hop)) continue;
    std::optional<KeyBlock> coming;
    const NextKeys next{[&]() -> const KeyBlock* {
                          if (!coming) coming = travelling.Next(hop);
                          return coming ? &*coming : nullptr;
                        },
                        // Only the last hop divides by the sums and rounds, so the error does not
                        // grow with the hops.
                        hop + 1 == last ? &output : nullptr};
    taken = AttentionBlockForward(queries, keys, scale, carry, progress,
                                  hop == last ? &output : nullptr,
                                  ring.SeesKeys(hop + 1) ? &next : nullptr);
  }
  return last < 0 ? FinishAttentionResult(carry, q_BTHK.scalar_type())
                  : MakeAttentionResult(carry, std::move(output));
}

AttentionGradients RingAttention::Backward(const at::Tensor& dout_BTHK, const Qkv& qkv,
                                           const AttentionResult& forward, double scale,
                                           CirculatedSide circulated) const {
  const Ring& ring = *backward_;
  CheckArguments(qkv, ring.view());
  const auto& [q_BTHK, k_BTGK, v_BTGK] = qkv;
  LWM_REQUIRE(dout_BTHK.sizes() == q_BTHK.sizes() &&
                  dout_BTHK.scalar_type() == q_BTHK.scalar_type() &&
                  forward.out_BTHK.sizes() == q_BTHK.sizes(),
              "attention: want dout and out like q ", q_BTHK.sizes(), ", got ", dout_BTHK.sizes(),
              " ", dout_BTHK.scalar_type(), " and ", forward.out_BTHK.sizes());
  // delta from the scaled dout as well: the gradients are linear in dout.
  const at::Tensor scaled_dout = GradientForRoundedLse(dout_BTHK, forward);
  const QueryGradientBlock queries{ring.Queries(ring.rank(), q_BTHK), scaled_dout, forward.lse_BHT,
                                   AttentionDelta(scaled_dout, forward.out_BTHK)};
  const KeyBlock keys = ring.Keys(ring.rank(), k_BTGK, v_BTGK);
  const AttentionGradientSums sums = MakeGradientSums(q_BTHK, k_BTGK);
  // From sizes that are the same on all ranks, so that all choose alike.
  if (circulated == CirculatedSide::kLighter) {
    circulated = QueriesAreLighter(q_BTHK.size(2), k_BTGK.size(2), q_BTHK.size(3))
                     ? CirculatedSide::kQueries
                     : CirculatedSide::kKeys;
  }
  const auto backward = ring.hops() == 1                         ? BackwardAlone
                        : circulated == CirculatedSide::kQueries ? BackwardOverQueries
                                                                 : BackwardOverKeys;
  AttentionGradients gradients = backward(ring, queries, keys, scale, sums);
  AddSingleTokens(single_BT_, dout_BTHK, gradients.dv_BTGK);
  return gradients;
}

}  // namespace lwm::ops
