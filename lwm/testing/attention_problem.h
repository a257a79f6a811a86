// Problems for the tests of attention over blocks, and their solution by the definition in f64.
#pragma once

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <algorithm>
#include <cmath>
#include <cstdint>
#include <iterator>
#include <limits>
#include <vector>

#include "lwm/ops/attention/block.h"

namespace lwm::ops::testing_support {

struct Case {
  int64_t batch = 1, tokens = 1, keys = 1, heads = 1, kv_heads = 1, dim = 8;
  std::vector<int64_t> segments = {};  // lengths; the last one reaches to the end
  int64_t offset = 0;                  // index of query 0
  bool causal = true;
  double magnitude = 1;  // of q
};

struct Problem {
  at::Tensor q_BTHK, k_BUGK, v_BUGK, dout_BTHK;
  at::Tensor index_BT, begin_BT, key_index_BU;
  double scale;
  QueryBlock queries() const { return {q_BTHK, index_BT, begin_BT}; }
  KeyBlock keys() const { return {k_BUGK, v_BUGK, key_index_BU}; }
};

struct Result {
  at::Tensor out_BTHK, lse_BHT, dq_BTHK, dk_BUGK, dv_BUGK;
};

inline at::Tensor BeginOfSegments(const Case& c, const at::Tensor& index_BT) {
  at::Tensor begin_BT = at::zeros_like(index_BT);
  int64_t start = 0;
  for (const int64_t length : c.segments) {
    begin_BT.masked_fill_(index_BT >= start, start);
    start += length;
  }
  return begin_BT;
}

inline Problem MakeProblem(const Case& c, at::ScalarType type) {
  at::manual_seed(7);
  Problem p;
  const auto random = [&](int64_t slots, int64_t heads) {
    return at::randn({c.batch, slots, heads, c.dim}, at::kFloat).to(type);
  };
  p.q_BTHK = (random(c.tokens, c.heads).to(at::kFloat) * c.magnitude).to(type);
  p.k_BUGK = random(c.keys, c.kv_heads);
  p.v_BUGK = random(c.keys, c.kv_heads);
  p.dout_BTHK = random(c.tokens, c.heads);
  const auto indices = [&](int64_t first, int64_t count) {
    return at::arange(first, first + count, at::kInt).expand({c.batch, count}).contiguous();
  };
  p.key_index_BU = indices(0, c.keys);
  const at::Tensor position_BT = indices(c.offset, c.tokens);
  p.begin_BT = BeginOfSegments(c, position_BT);
  p.index_BT = c.causal ? position_BT : at::full_like(position_BT, c.keys);
  p.scale = 1 / std::sqrt(static_cast<double>(c.dim));
  return p;
}

// The definition in f64, with gradients written out.
inline Result Reference(const Problem& p) {
  const int64_t group = p.q_BTHK.size(2) / p.k_BUGK.size(2);
  const auto heads_first = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
  const at::Tensor q = heads_first(p.q_BTHK), dout = heads_first(p.dout_BTHK);
  const at::Tensor k = heads_first(p.k_BUGK).repeat_interleave(group, 1);
  const at::Tensor v = heads_first(p.v_BUGK).repeat_interleave(group, 1);
  const at::Tensor key = p.key_index_BU.unsqueeze(1).unsqueeze(1);
  const at::Tensor hidden = at::logical_or(
      key<p.begin_BT.unsqueeze(1).unsqueeze(3), key> p.index_BT.unsqueeze(1).unsqueeze(3));
  const double minus_infinity = -std::numeric_limits<double>::infinity();
  const at::Tensor s =
      (at::matmul(q, k.transpose(2, 3)) * p.scale).masked_fill(hidden, minus_infinity);
  Result r;
  r.lse_BHT = at::logsumexp(s, {-1});
  const at::Tensor prob = at::exp(s - r.lse_BHT.unsqueeze(-1)).masked_fill(hidden, 0);
  const at::Tensor out = at::matmul(prob, v);
  const at::Tensor delta = (dout * out).sum(-1, true);
  const at::Tensor ds = prob * (at::matmul(dout, v.transpose(2, 3)) - delta) * p.scale;
  const auto by_group = [&](const at::Tensor& x) {
    return x.unflatten(1, {p.k_BUGK.size(2), group}).sum(2).transpose(1, 2);
  };
  r.out_BTHK = out.transpose(1, 2);
  r.dq_BTHK = at::matmul(ds, k).transpose(1, 2);
  r.dk_BUGK = by_group(at::matmul(ds.transpose(2, 3), q));
  r.dv_BUGK = by_group(at::matmul(prob.transpose(2, 3), dout));
  return r;
}

inline Result Compute(const Problem& p, const std::vector<KeyBlock>& blocks) {
  AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
  for (const KeyBlock& block : blocks) {
    AttentionBlockForward(p.queries(), block, p.scale, carry, {});
  }
  Result r;
  FinishAttention(carry, p.q_BTHK.scalar_type(), r.out_BTHK, r.lse_BHT);
  const QueryGradientBlock queries{p.queries(), p.dout_BTHK, r.lse_BHT,
                                   AttentionDelta(p.dout_BTHK, r.out_BTHK)};
  r.dq_BTHK = at::zeros(p.q_BTHK.sizes(), at::kFloat);
  std::vector<at::Tensor> dk, dv;
  for (const KeyBlock& block : blocks) {
    dk.push_back(at::zeros(block.k_BUGK.sizes(), at::kFloat));
    dv.push_back(at::zeros(block.v_BUGK.sizes(), at::kFloat));
    AttentionBlockBackward(queries, block, p.scale, {r.dq_BTHK, dk.back(), dv.back()}, {});
  }
  r.dk_BUGK = at::cat(dk, 1);
  r.dv_BUGK = at::cat(dv, 1);
  return r;
}

inline Result Compute(const Problem& p) { return Compute(p, {p.keys()}); }

// Largest difference, in units of the largest entry (of 0.1 where all are close to 0, as the
// gradients of a lone token).
inline double Difference(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor finite = at::isfinite(want);
  EXPECT_TRUE(at::equal(at::isneginf(got), at::isneginf(want)));
  if (!finite.any().item<bool>()) return 0;
  const at::Tensor g = got.to(at::kDouble).masked_select(finite);
  const at::Tensor w = want.to(at::kDouble).masked_select(finite);
  const double error = (g - w).abs().max().item<double>();
  const double size = w.abs().max().item<double>();
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error / std::max(size, 0.1);
}

inline double Worst(const Result& got, const Result& want) {
  const double pairs[] = {
      Difference(got.out_BTHK, want.out_BTHK), Difference(got.lse_BHT, want.lse_BHT),
      Difference(got.dq_BTHK, want.dq_BTHK), Difference(got.dk_BUGK, want.dk_BUGK),
      Difference(got.dv_BUGK, want.dv_BUGK)};
  return *std::max_element(std::begin(pairs), std::end(pairs));
}

}  // namespace lwm::ops::testing_support
