#include "lwm/ops/attention/whole.h"

#include <ATen/ATen.h>

#include <limits>
#include <set>
#include <utility>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/ops/attention/block.h"
#include "lwm/ops/attention/ring_attention.h"
#include "lwm/ops/attention/sequence_view.h"

namespace lwm::ops {
namespace {

void CheckProblem(const WholeAttention& p) {
  LWM_REQUIRE(p.q_BHTK.dim() == 4 && p.k_BGSK.dim() == 4 && p.k_BGSK.sizes() == p.v_BGSK.sizes() &&
                  p.q_BHTK.size(0) == p.k_BGSK.size(0) && p.q_BHTK.size(3) == p.k_BGSK.size(3) &&
                  p.q_BHTK.numel() > 0 && p.k_BGSK.numel() > 0,
              "attention: want q [B,H,T,K] and k, v [B,G,S,K], got q ", p.q_BHTK.sizes(), " k ",
              p.k_BGSK.sizes(), " v ", p.v_BGSK.sizes());
  LWM_REQUIRE(p.q_BHTK.size(1) % p.k_BGSK.size(1) == 0, "attention: ", p.q_BHTK.size(1),
              " query heads do not divide into ", p.k_BGSK.size(1), " kv heads; want a multiple");
  LWM_REQUIRE(!p.dout_BHTK.defined() || p.dout_BHTK.sizes() == p.q_BHTK.sizes(),
              "attention: want dout like q ", p.q_BHTK.sizes(), ", got ", p.dout_BHTK.sizes());
  LWM_REQUIRE(p.offset >= 0, "attention: the first query's position is ", p.offset,
              "; want 0 or more");
  const int64_t keys = p.k_BGSK.size(2), end = p.offset + p.q_BHTK.size(2);
  LWM_REQUIRE(
      end <= std::numeric_limits<int32_t>::max() && keys <= std::numeric_limits<int32_t>::max(),
      "attention: positions reach ", end, " over ", keys, " keys; want below 2^31");
  if (!p.segment_BS.defined()) return;
  LWM_REQUIRE(!p.segment_BS.is_floating_point() && p.segment_BS.dim() == 2 &&
                  p.segment_BS.size(0) == p.k_BGSK.size(0) && p.segment_BS.size(1) == keys,
              "attention: want integer segment_ids [", p.k_BGSK.size(0), ", ", keys, "], got ",
              p.segment_BS.scalar_type(), " ", p.segment_BS.sizes());
  LWM_REQUIRE(end <= keys, "attention: queries at positions up to ", end - 1,
              " but segment_ids for ", keys, " only");
}

// First and last index of every token's segment. Without causal order a query sees to the last.
struct Segments {
  std::vector<int32_t> begin_S, last_S;
};

Segments FindSegments(const WholeAttention& p, int64_t row) {
  const int64_t keys = p.k_BGSK.size(2);
  Segments segments;
  segments.begin_S.resize(static_cast<size_t>(keys));
  segments.last_S.assign(static_cast<size_t>(keys), static_cast<int32_t>(keys - 1));
  if (!p.segment_BS.defined()) return segments;
  const at::Tensor id_S = p.segment_BS[row].to(at::kLong).contiguous();
  const int64_t* id = id_S.const_data_ptr<int64_t>();
  std::set<int64_t> seen;
  int64_t begin = 0;
  for (int64_t i = 0; i < keys; ++i) {
    if (i == 0 || id[i] != id[i - 1]) {
      LWM_REQUIRE(seen.insert(id[i]).second, "segment_ids: in row ", row, " id ", id[i],
                  " recurs at position ", i,
                  " after another segment; a segment must be one run of equal ids");
      std::fill(segments.last_S.begin() + begin, segments.last_S.begin() + i,
                static_cast<int32_t>(i - 1));
      begin = i;
    }
    segments.begin_S[static_cast<size_t>(i)] = static_cast<int32_t>(begin);
  }
  return segments;
}

// Callers' tensors have heads before tokens, kernels tokens before heads.
at::Tensor TokensFirst(const at::Tensor& x_BHTK) { return x_BHTK.transpose(1, 2).contiguous(); }
at::Tensor HeadsFirst(const at::Tensor& x_BTHK) {
  return x_BTHK.to(at::kFloat).transpose(1, 2).contiguous();
}

template <class Tensor>
std::span<std::byte> Bytes(const Tensor& x) {
  return {static_cast<std::byte*>(x.data_ptr()), x.nbytes()};
}

// Slots [P,B,T,...] of all ranks from this rank's [B,T,...].
at::Tensor GatherSlots(const at::Tensor& local, dist::Communicator* group) {
  const at::Tensor send = local.contiguous();
  if (!group) return send.unsqueeze(0);
  std::vector<int64_t> shape{group->size()};
  shape.insert(shape.end(), send.sizes().begin(), send.sizes().end());
  at::Tensor all = at::empty(shape, send.options());
  group->StartAllGather(Bytes(send), Bytes(all)).Wait();
  return all;
}

// Moves tokens between the whole tensor and the slots of a plan. Empty slots read token 0 and are
// then cleared, since index_select takes no -1.
class Slots {
 public:
  explicit Slots(const SequenceView& view) : view_(view) {}

  // [B,T,...] of this rank from [B,S,...]; empty slots are 0.
  at::Tensor Take(const at::Tensor& whole) const {
    const at::Tensor index_BT = view_.index_PBT[view_.rank()].to(at::kLong);
    std::vector<at::Tensor> rows;
    for (int64_t row = 0; row < view_.rows(); ++row) {
      const at::Tensor taken = whole[row].index_select(0, index_BT[row].clamp_min(0));
      rows.push_back(taken.masked_fill(Empty(index_BT[row], taken.dim()), 0));
    }
    return at::stack(rows);
  }

  // The whole [B,S,...] on every rank.
  at::Tensor Put(const at::Tensor& local, int64_t tokens) const {
    const at::Tensor all = GatherSlots(local, view_.sp);
    std::vector<int64_t> shape = local.sizes().vec();
    shape[1] = tokens;
    at::Tensor whole = at::zeros(shape, local.options());
    for (int64_t rank = 0; rank < view_.ranks(); ++rank) {
      for (int64_t row = 0; row < view_.rows(); ++row) {
        const at::Tensor index_T = view_.index_PBT[rank][row].to(at::kLong);
        const at::Tensor used = at::nonzero(index_T >= 0).squeeze(1);
        whole[row].index_copy_(0, index_T.index_select(0, used),
                               all[rank][row].index_select(0, used));
      }
    }
    return whole;
  }

 private:
  static at::Tensor Empty(const at::Tensor& index_T, int64_t dims) {
    std::vector<int64_t> shape(static_cast<size_t>(dims), 1);
    shape[0] = index_T.size(0);
    return (index_T < 0).view(shape);
  }

  const SequenceView& view_;
};

// Causal self-attention goes over the ring: each rank holds queries and keys of the same slots.
WholeAttentionResult AttendRing(const WholeAttention& p, dist::Communicator* group) {
  const int64_t tokens = p.q_BHTK.size(2);
  std::vector<dist::SequencePlan> plans;
  for (int64_t row = 0; row < p.q_BHTK.size(0); ++row) {
    // Zigzag balances one causal segment; several need the allowed area of each counted.
    const auto plan = p.segment_BS.defined() ? dist::PlanBalanced : dist::PlanZigzag;
    plans.push_back(plan(tokens, group ? group->size() : 1, FindSegments(p, row).begin_S));
  }
  const SequenceView view = MakeSequenceView(plans, group);
  const Slots slots(view);
  const auto take = [&](const at::Tensor& x) { return slots.Take(TokensFirst(x)); };
  const auto put = [&](const at::Tensor& x) { return HeadsFirst(slots.Put(x, tokens)); };
  const RingAttention ring(view);
  const Qkv qkv{take(p.q_BHTK), take(p.k_BGSK), take(p.v_BGSK)};
  const AttentionResult forward = ring.Forward(qkv, p.scale);
  WholeAttentionResult result;
  result.out_BHTK = put(forward.out_BTHK);
  result.lse_BHT = slots.Put(forward.lse_BHT.transpose(1, 2), tokens).transpose(1, 2).contiguous();
  if (!p.dout_BHTK.defined()) return result;
  const AttentionGradients gradients = ring.Backward(take(p.dout_BHTK), qkv, forward, p.scale);
  result.dq_BHTK = put(gradients.dq_BTHK);
  result.dk_BGSK = put(gradients.dk_BTGK);
  result.dv_BGSK = put(gradients.dv_BTGK);
  return result;
}

// The interval of keys that each query sees.
QueryBlock MakeQueries(const WholeAttention& p) {
  const int64_t rows = p.q_BHTK.size(0), tokens = p.q_BHTK.size(2), keys = p.k_BGSK.size(2);
  QueryBlock queries{TokensFirst(p.q_BHTK), at::empty({rows, tokens}, at::kInt),
                     at::empty({rows, tokens}, at::kInt)};
  for (int64_t row = 0; row < rows; ++row) {
    const Segments segments = FindSegments(p, row);
    int32_t* index_T = queries.index_BT[row].data_ptr<int32_t>();
    int32_t* begin_T = queries.begin_BT[row].data_ptr<int32_t>();
    for (int64_t t = 0; t < tokens; ++t) {
      const int64_t position = p.offset + t;
      const auto place = static_cast<size_t>(std::min(position, keys - 1));
      index_T[t] = p.causal ? static_cast<int32_t>(position) : segments.last_S[place];
      begin_T[t] = segments.begin_S[place];
    }
  }
  return queries;
}

void AllReduceSum(dist::Communicator* group, at::Tensor& x) {
  if (group) group->AllReduceSum(std::span(x.data_ptr<float>(), static_cast<size_t>(x.numel())));
}

// Joins the carries of all ranks, as one rank would join blocks of keys: sums and values relative
// to the common maximum, then added. Rounding of max * log2(e) is taken into account (ExponentOf).
void MergeCarries(dist::Communicator* group, AttentionCarry& carry) {
  if (!group) return;
  at::Tensor max_BHT = carry.max_BHT.to(at::kDouble);
  group->AllReduceMax(std::span(max_BHT.data_ptr<double>(), static_cast<size_t>(max_BHT.numel())));
  const at::Tensor new_max_BHT = max_BHT.to(at::kFloat);
  // NaN = -inf - -inf where no rank has seen a key becomes 0; the sums are 0 there.
  const at::Tensor factor_BHT =
      at::exp(ExponentOf(carry.max_BHT) - ExponentOf(new_max_BHT)).to(at::kFloat).nan_to_num(0);
  carry.max_BHT.copy_(new_max_BHT);
  carry.sum_BHT.mul_(factor_BHT);
  carry.acc_BTHK.mul_(factor_BHT.transpose(1, 2).unsqueeze(-1));
  AllReduceSum(group, carry.sum_BHT);
  AllReduceSum(group, carry.acc_BTHK);
}

// Any other pairing, such as a chunk of a prompt against a cache: every rank has all queries and an
// equal share of the keys, and one sum over the ranks joins them.
WholeAttentionResult AttendSplitKeys(const WholeAttention& p, dist::Communicator* group) {
  const int64_t rows = p.q_BHTK.size(0), keys = p.k_BGSK.size(2);
  const int64_t ranks = group ? group->size() : 1, rank = group ? group->rank() : 0;
  // The last ranks may have fewer keys, or none; gradients are padded to equal shares to be
  // gathered.
  const int64_t share = (keys + ranks - 1) / ranks, first = std::min(rank * share, keys);
  const int64_t count = std::min(share, keys - first);
  const QueryBlock queries = MakeQueries(p);
  const auto my_keys = [&](const at::Tensor& x) { return TokensFirst(x.narrow(2, first, count)); };
  const KeyBlock block{
      my_keys(p.k_BGSK), my_keys(p.v_BGSK),
      at::arange(first, first + count, at::kInt).expand({rows, count}).contiguous()};
  AttentionCarry carry = MakeAttentionCarry(queries.q_BTHK);
  carry.acc_BTHK.zero_();  // summed over the ranks, whatever they have seen
  AttentionBlockForward(queries, block, p.scale, carry, {});
  MergeCarries(group, carry);
  const AttentionResult forward = FinishAttentionResult(carry, p.q_BHTK.scalar_type());
  WholeAttentionResult result;
  result.out_BHTK = HeadsFirst(forward.out_BTHK);
  result.lse_BHT = forward.lse_BHT;
  if (!p.dout_BHTK.defined()) return result;
  const at::Tensor dout_BTHK = GradientForRoundedLse(TokensFirst(p.dout_BHTK), forward);
  at::Tensor dq_BTHK = at::zeros(queries.q_BTHK.sizes(), at::kFloat);
  at::Tensor dk_BUGK = at::zeros({rows, share, p.k_BGSK.size(1), p.k_BGSK.size(3)}, at::kFloat);
  at::Tensor dv_BUGK = at::zeros_like(dk_BUGK);
  at::Tensor my_dk_BUGK = dk_BUGK.narrow(1, 0, count).contiguous();
  at::Tensor my_dv_BUGK = my_dk_BUGK.clone();
  AttentionBlockBackward(
      {queries, dout_BTHK, result.lse_BHT, AttentionDelta(dout_BTHK, forward.out_BTHK)}, block,
      p.scale, {dq_BTHK, my_dk_BUGK, my_dv_BUGK}, {});
  dk_BUGK.narrow(1, 0, count).copy_(my_dk_BUGK);
  dv_BUGK.narrow(1, 0, count).copy_(my_dv_BUGK);
  AllReduceSum(group, dq_BTHK);
  result.dq_BHTK = HeadsFirst(dq_BTHK);
  // [P,B,share,...] -> [B,P*share,...], cut to the keys there are.
  const auto gather = [&](const at::Tensor& x) {
    const at::Tensor all = GatherSlots(x, group).transpose(0, 1).flatten(1, 2);
    return HeadsFirst(all.narrow(1, 0, keys));
  };
  result.dk_BGSK = gather(dk_BUGK);
  result.dv_BGSK = gather(dv_BUGK);
  return result;
}

}  // namespace

WholeAttentionResult AttendWhole(const WholeAttention& problem, dist::Communicator* group) {
  CheckProblem(problem);
  if (group && group->size() == 1) group = nullptr;
  const bool self =
      problem.causal && problem.offset == 0 && problem.q_BHTK.size(2) == problem.k_BGSK.size(2);
  return self ? AttendRing(problem, group) : AttendSplitKeys(problem, group);
}

}  // namespace lwm::ops
