#include "lwm/ops/attention_block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

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

at::Tensor BeginOfSegments(const Case& c, const at::Tensor& index_BT) {
  at::Tensor begin_BT = at::zeros_like(index_BT);
  int64_t start = 0;
  for (const int64_t length : c.segments) {
    begin_BT.masked_fill_(index_BT >= start, start);
    start += length;
  }
  return begin_BT;
}

Problem MakeProblem(const Case& c, at::ScalarType type) {
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
Result Reference(const Problem& p) {
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

Result Compute(const Problem& p, const std::vector<KeyBlock>& blocks) {
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
    AttentionBlockBackward(queries, block, p.scale, r.dq_BTHK, dk.back(), dv.back(), {});
  }
  r.dk_BUGK = at::cat(dk, 1);
  r.dv_BUGK = at::cat(dv, 1);
  return r;
}

Result Compute(const Problem& p) { return Compute(p, {p.keys()}); }

// Largest difference, in units of the largest entry (of 0.1 where all are close to 0, as the
// gradients of a lone token).
double Difference(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor finite = at::isfinite(want);
  EXPECT_TRUE(at::equal(at::isneginf(got), at::isneginf(want)));
  if (!finite.any().item<bool>()) return 0;
  const at::Tensor g = got.to(at::kDouble).masked_select(finite);
  const at::Tensor w = want.to(at::kDouble).masked_select(finite);
  const double error = (g - w).abs().max().item<double>();
  const double size = w.abs().max().item<double>();
  return std::isnan(error) ? std::numeric_limits<double>::infinity() : error / std::max(size, 0.1);
}

double Worst(const Result& got, const Result& want) {
  const double pairs[] = {
      Difference(got.out_BTHK, want.out_BTHK), Difference(got.lse_BHT, want.lse_BHT),
      Difference(got.dq_BTHK, want.dq_BTHK), Difference(got.dk_BUGK, want.dk_BUGK),
      Difference(got.dv_BUGK, want.dv_BUGK)};
  return *std::max_element(std::begin(pairs), std::end(pairs));
}

void ExpectMatchesReference(const Case& c, double f32_bound = 5e-6) {
  const Problem exact = MakeProblem(c, at::kFloat);
  EXPECT_LE(Worst(Compute(exact), Reference(exact)), f32_bound);
  const Problem rounded = MakeProblem(c, at::kBFloat16);
  EXPECT_LE(Worst(Compute(rounded), Reference(rounded)), 2e-2);
}

TEST(AttentionBlockTest, OutputWithTheLastKeysIsThatOfTheCarry) {
  // Queries that see keys of both blocks, of the first only, and none.
  const Case c{2, 300, 700, 2, 1, 40, {90, 410}, 100};
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Problem p = MakeProblem(c, type);
    p.index_BT.narrow(1, 7, 3).fill_(-1);
    p.begin_BT.narrow(1, 7, 3).fill_(0);
    const auto part = [&](int64_t first, int64_t count) {
      return KeyBlock{p.k_BUGK.narrow(1, first, count), p.v_BUGK.narrow(1, first, count),
                      p.key_index_BU.narrow(1, first, count).contiguous()};
    };
    for (const bool two : {false, true}) {
      AttentionCarry carry = MakeAttentionCarry(p.q_BTHK), same = MakeAttentionCarry(p.q_BTHK);
      AttentionOutput output;
      if (two) AttentionBlockForward(p.queries(), part(0, 300), p.scale, carry, {});
      if (two) AttentionBlockForward(p.queries(), part(0, 300), p.scale, same, {});
      const KeyBlock last = two ? part(300, 400) : p.keys();
      AttentionBlockForward(p.queries(), last, p.scale, carry, {}, &output);
      AttentionBlockForward(p.queries(), last, p.scale, same, {});
      at::Tensor out_BTHK, lse_BHT;
      FinishAttention(same, type, out_BTHK, lse_BHT);
      EXPECT_TRUE(at::equal(output.out_BTHK, out_BTHK));
      EXPECT_TRUE(at::equal(output.lse_BHT, lse_BHT));
      EXPECT_TRUE(at::equal(carry.max_BHT, same.max_BHT));
      EXPECT_TRUE(at::equal(carry.sum_BHT, same.sum_BHT));
      EXPECT_TRUE(at::all(output.out_BTHK.narrow(1, 7, 3) == 0).item<bool>());
    }
  }
}

TEST(AttentionBlockTest, MatchesReferenceForOddSizesAndHeadDims) {
  for (const int64_t dim : {8, 20, 33, 64, 128, 256}) {
    SCOPED_TRACE(dim);
    ExpectMatchesReference(
        {.batch = 2, .tokens = 37, .keys = 37, .heads = 2, .kv_heads = 2, .dim = dim});
  }
  for (const int64_t tokens : {1, 2, 63, 129, 301}) {
    SCOPED_TRACE(tokens);
    ExpectMatchesReference(
        {.tokens = tokens, .keys = tokens, .heads = 2, .kv_heads = 2, .dim = 16});
  }
}

TEST(AttentionBlockTest, SpansManyTilesOfQueriesAndKeys) {
  ExpectMatchesReference(
      {.tokens = 700, .keys = 1111, .heads = 2, .kv_heads = 1, .dim = 24, .offset = 411});
}

TEST(AttentionBlockTest, SharesKeysAmongTheQueryHeadsOfAGroup) {
  for (const int64_t kv_heads : {1, 2, 3, 6}) {
    SCOPED_TRACE(kv_heads);
    ExpectMatchesReference(
        {.batch = 2, .tokens = 67, .keys = 67, .heads = 6, .kv_heads = kv_heads, .dim = 12});
  }
  ExpectMatchesReference({.tokens = 70, .keys = 70, .heads = 40, .kv_heads = 1, .dim = 16});
}

TEST(AttentionBlockTest, KeepsSegmentsApart) {
  ExpectMatchesReference({.batch = 2,
                          .tokens = 300,
                          .keys = 300,
                          .heads = 4,
                          .kv_heads = 2,
                          .dim = 16,
                          .segments = {1, 1, 63, 65, 100}});
}

TEST(AttentionBlockTest, SeesAllKeysWithoutTheCausalRule) {
  ExpectMatchesReference({.batch = 2,
                          .tokens = 29,
                          .keys = 341,
                          .heads = 4,
                          .kv_heads = 1,
                          .dim = 8,
                          .causal = false});
}

TEST(AttentionBlockTest, HoldsScoresInTheHundreds) {
  const Case c{.tokens = 145, .keys = 145, .heads = 2, .kv_heads = 2, .dim = 16, .magnitude = 100};
  const Problem p = MakeProblem(c, at::kFloat);
  EXPECT_LE(Worst(Compute(p), Reference(p)), 4e-5);
}

// The running maximum rises, by little and by much, from one group of keys to the next.
TEST(AttentionBlockTest, HoldsRisingAndFallingScoresInBf16) {
  for (const double rise : {0.02, 0.3, -0.3}) {
    for (const bool causal : {false, true}) {
      Problem p = MakeProblem({.tokens = 700,
                               .keys = 1300,
                               .heads = 2,
                               .kv_heads = 1,
                               .dim = 64,
                               .offset = 600,
                               .causal = causal},
                              at::kBFloat16);
      p.q_BTHK.select(3, 0).fill_(rise / p.scale);
      p.k_BUGK.select(3, 0).copy_(at::arange(1300).view({1, 1300, 1}));
      const Result got = Compute(p), want = Reference(p);
      EXPECT_LE(Difference(got.out_BTHK, want.out_BTHK), 8e-3) << rise << causal;
      EXPECT_LE(Difference(got.lse_BHT, want.lse_BHT), 4e-5) << rise << causal;
    }
  }
}

TEST(AttentionBlockTest, ReadsStridedRowsInPlace) {
  Problem p = MakeProblem(
      {.batch = 2, .tokens = 45, .keys = 45, .heads = 2, .kv_heads = 2, .dim = 16}, at::kFloat);
  const Result want = Compute(p);
  const at::Tensor qkv = at::cat({p.q_BTHK, p.k_BUGK, p.v_BUGK}, 2);
  p.q_BTHK = qkv.slice(2, 0, 2);
  p.k_BUGK = qkv.slice(2, 2, 4);
  p.v_BUGK = qkv.slice(2, 4, 6);
  p.dout_BTHK = p.dout_BTHK.transpose(0, 1).contiguous().transpose(0, 1);
  EXPECT_EQ(Worst(Compute(p), want), 0);
}

TEST(AttentionBlockTest, EmptySlotsSeeNothingAndAreSeenByNobody) {
  Problem p = MakeProblem(
      {.batch = 2, .tokens = 90, .keys = 90, .heads = 2, .kv_heads = 1, .dim = 16}, at::kFloat);
  p.index_BT.slice(1, 70).fill_(-1);
  p.begin_BT.slice(1, 70).fill_(0);
  p.key_index_BU.slice(1, 70).fill_(-1);
  p.k_BUGK.slice(1, 70).fill_(std::nan(""));
  const Result r = Compute(p);
  EXPECT_EQ(r.out_BTHK.slice(1, 70).abs().max().item<float>(), 0);
  EXPECT_TRUE(at::isneginf(r.lse_BHT.slice(2, 70)).all().item<bool>());
  EXPECT_EQ(r.dq_BTHK.slice(1, 70).abs().max().item<float>(), 0);
  EXPECT_EQ(r.dk_BUGK.slice(1, 70).abs().max().item<float>(), 0);
  p.k_BUGK.slice(1, 70).fill_(0);
  EXPECT_LE(Worst(r, Reference(p)), 5e-6);
}

TEST(AttentionBlockTest, BlockThatNobodySeesChangesNothing) {
  Problem p =
      MakeProblem({.tokens = 20, .keys = 30, .heads = 1, .kv_heads = 1, .dim = 8}, at::kFloat);
  p.key_index_BU += 1000;
  const Result r = Compute(p);
  EXPECT_EQ(r.out_BTHK.abs().max().item<float>(), 0);
  EXPECT_TRUE(at::isneginf(r.lse_BHT).all().item<bool>());
  EXPECT_EQ(r.dv_BUGK.abs().max().item<float>(), 0);
}

// Rows and segments that a NaN may reach are exactly those that see it.
TEST(AttentionBlockTest, NanStaysInItsSegment) {
  const Case c{
      .tokens = 200, .keys = 200, .heads = 2, .kv_heads = 1, .dim = 16, .segments = {70, 130}};
  const Problem clean = MakeProblem(c, at::kFloat);
  const Result want = Reference(clean);
  for (int which = 0; which < 4; ++which) {
    SCOPED_TRACE(which);
    Problem p = MakeProblem(c, at::kFloat);
    at::Tensor poisoned = which == 0   ? p.q_BTHK
                          : which == 1 ? p.k_BUGK
                          : which == 2 ? p.v_BUGK
                                       : p.dout_BTHK;
    poisoned.select(1, 90).fill_(which == 2 ? std::numeric_limits<float>::infinity()
                                            : std::nanf(""));
    const Result got = Compute(p);
    const auto expect_clean = [&](const at::Tensor& x, const at::Tensor& y, int dim, int64_t to) {
      EXPECT_LE(Difference(x.slice(dim, 0, to), y.slice(dim, 0, to)), 5e-6);
    };
    expect_clean(got.out_BTHK, want.out_BTHK, 1, 90);
    expect_clean(got.lse_BHT, want.lse_BHT, 2, 90);
    expect_clean(got.dq_BTHK, want.dq_BTHK, 1, 70);
    expect_clean(got.dk_BUGK, want.dk_BUGK, 1, 70);
    expect_clean(got.dv_BUGK, want.dv_BUGK, 1, 70);
    const at::Tensor& reached = which == 3 ? got.dv_BUGK : got.out_BTHK;
    EXPECT_FALSE(at::isfinite(reached.select(1, which == 3 ? 80 : 90)).any().item<bool>());
    if (which == 0) expect_clean(got.out_BTHK.slice(1, 91), want.out_BTHK.slice(1, 91), 1, 109);
  }
}

TEST(AttentionBlockTest, KeysInTwoBlocksGiveTheSame) {
  const Problem p = MakeProblem({.batch = 2,
                                 .tokens = 400,
                                 .keys = 400,
                                 .heads = 2,
                                 .kv_heads = 1,
                                 .dim = 32,
                                 .segments = {150, 250}},
                                at::kFloat);
  std::vector<KeyBlock> blocks;
  for (const auto& [from, to] : {std::pair{170, 400}, std::pair{0, 170}}) {
    blocks.push_back({p.k_BUGK.slice(1, from, to), p.v_BUGK.slice(1, from, to),
                      p.key_index_BU.slice(1, from, to).contiguous()});
  }
  Result got = Compute(p, blocks);
  for (at::Tensor* x : {&got.dk_BUGK, &got.dv_BUGK}) *x = at::roll(*x, 170, 1);
  EXPECT_LE(Worst(got, Compute(p)), 2e-6);
}

TEST(AttentionBlockTest, BitsDoNotDependOnTheNumberOfThreads) {
  const int before = at::get_num_threads();
  for (const auto type : {at::kFloat, at::kBFloat16}) {
    const Problem p = MakeProblem({.tokens = 1500,
                                   .keys = 1500,
                                   .heads = 2,
                                   .kv_heads = 1,
                                   .dim = 32,
                                   .segments = {150, 1350}},
                                  type);
    at::set_num_threads(1);
    const Result one = Compute(p);
    for (const int threads : {2, 5}) {
      at::set_num_threads(threads);
      const Result many = Compute(p);
      EXPECT_TRUE(at::equal(one.out_BTHK, many.out_BTHK) && at::equal(one.lse_BHT, many.lse_BHT));
      EXPECT_TRUE(at::equal(one.dq_BTHK, many.dq_BTHK));
      EXPECT_TRUE(at::equal(one.dk_BUGK, many.dk_BUGK) && at::equal(one.dv_BUGK, many.dv_BUGK));
    }
  }
  at::set_num_threads(before);
}

TEST(AttentionBlockTest, AddsToWhatIsThere) {
  const Problem p =
      MakeProblem({.tokens = 50, .keys = 50, .heads = 2, .kv_heads = 2, .dim = 16}, at::kFloat);
  const Result r = Compute(p);
  const QueryGradientBlock queries{p.queries(), p.dout_BTHK, r.lse_BHT,
                                   AttentionDelta(p.dout_BTHK, r.out_BTHK)};
  at::Tensor dq = at::ones_like(r.dq_BTHK), dk = at::ones_like(r.dk_BUGK),
             dv = at::ones_like(r.dv_BUGK);
  AttentionBlockBackward(queries, p.keys(), p.scale, dq, dk, dv, {});
  EXPECT_LE(Difference(dq - 1, r.dq_BTHK), 1e-6);
  EXPECT_LE(Difference(dk - 1, r.dk_BUGK), 1e-6);
  EXPECT_LE(Difference(dv - 1, r.dv_BUGK), 1e-6);
}

TEST(AttentionBlockTest, SettingGradientsIsAddingToZero) {
  const Case c{2, 700, 1100, 2, 1, 40, {90, 410}, 400};
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    Problem p = MakeProblem(c, type);
    p.index_BT.narrow(1, 7, 300).fill_(-1);  // a whole tile of queries sees nothing
    p.begin_BT.narrow(1, 7, 300).fill_(0);
    const Result want = Compute(p);
    AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
    AttentionOutput output;
    AttentionBlockForward(p.queries(), p.keys(), p.scale, carry, {}, &output);
    const QueryGradientBlock queries{p.queries(), p.dout_BTHK, output.lse_BHT,
                                     AttentionDelta(p.dout_BTHK, output.out_BTHK)};
    const auto garbage = [](const at::Tensor& like, at::ScalarType dtype) {
      return at::full(like.sizes(), NAN, dtype);
    };
    for (const bool rounds : {false, true}) {
      at::Tensor dq = garbage(p.q_BTHK, at::kFloat), dk = garbage(p.k_BUGK, at::kFloat);
      at::Tensor dv = garbage(p.k_BUGK, at::kFloat);
      AttentionGradientOptions options{.set_queries = true, .set_keys = true};
      if (rounds) {
        dq = options.rounded_dq_BTHK = garbage(p.q_BTHK, type);
        dk = options.rounded_dk_BUGK = garbage(p.k_BUGK, type);
        dv = options.rounded_dv_BUGK = garbage(p.k_BUGK, type);
      }
      at::Tensor dq_sum = rounds ? garbage(p.q_BTHK, at::kFloat) : dq;
      at::Tensor dk_sum = rounds ? garbage(p.k_BUGK, at::kFloat) : dk;
      at::Tensor dv_sum = rounds ? garbage(p.k_BUGK, at::kFloat) : dv;
      AttentionBlockBackward(queries, p.keys(), p.scale, dq_sum, dk_sum, dv_sum, {}, options);
      const double bound = rounds && type == at::kBFloat16 ? 4e-3 : 0;  // rounding to bf16
      EXPECT_LE(Difference(dq, want.dq_BTHK), bound);
      EXPECT_LE(Difference(dk, want.dk_BUGK), bound);
      EXPECT_LE(Difference(dv, want.dv_BUGK), bound);
    }
  }
}

// What comes after so many polls.
template <class Arrived>
std::function<const Arrived*()> After(int polls, const Arrived& what) {
  return [polls, &what]() mutable { return polls-- > 0 ? nullptr : &what; };
}

// Queries that see keys of both blocks, of either one, and none; a NaN that some of them see.
Problem MakeProblemInTwoBlocks(at::ScalarType type) {
  Problem p = MakeProblem({2, 1000, 1000, 4, 2, 40, {90, 410, 500}}, type);
  p.index_BT.narrow(1, 7, 3).fill_(-1);
  p.begin_BT.narrow(1, 7, 3).fill_(0);
  p.k_BUGK.select(1, 970).fill_(NAN);
  p.q_BTHK.select(1, 990).fill_(NAN);
  return p;
}

TEST(AttentionBlockTest, KeysThatJoinWhenTheyArriveGiveTheSameBits) {
  const int before = at::get_num_threads();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Problem p = MakeProblemInTwoBlocks(type);
    const auto part = [&](int64_t first, int64_t count) {
      return KeyBlock{p.k_BUGK.narrow(1, first, count), p.v_BUGK.narrow(1, first, count),
                      p.key_index_BU.narrow(1, first, count).contiguous()};
    };
    const KeyBlock one = part(600, 400), two = part(0, 600);
    AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
    AttentionOutput want, got;
    AttentionBlockForward(p.queries(), one, p.scale, carry, {});
    AttentionBlockForward(p.queries(), two, p.scale, carry, {}, &want);
    for (const int polls : {0, 5, 1000}) {
      at::set_num_threads(polls == 5 ? 3 : 1);
      const NextKeys next{After(polls, two), &got};
      carry = MakeAttentionCarry(p.q_BTHK);
      const bool joined =
          AttentionBlockForward(p.queries(), one, p.scale, carry, {}, nullptr, &next);
      if (polls != 5) {
        EXPECT_EQ(joined, polls == 0);
      }
      if (!joined) AttentionBlockForward(p.queries(), two, p.scale, carry, {}, &got);
      EXPECT_TRUE(at::equal(got.out_BTHK.nan_to_num(9), want.out_BTHK.nan_to_num(9)));
      EXPECT_TRUE(at::equal(got.lse_BHT.nan_to_num(9), want.lse_BHT.nan_to_num(9)));
    }
  }
  at::set_num_threads(before);
}

TEST(AttentionBlockTest, QueriesThatJoinWhenTheyArriveGiveTheSameBits) {
  const int before = at::get_num_threads();
  for (const at::ScalarType type : {at::kFloat, at::kBFloat16}) {
    const Problem p = MakeProblemInTwoBlocks(type);
    const Result forward = Compute(p);
    const at::Tensor delta_BHT = AttentionDelta(p.dout_BTHK, forward.out_BTHK);
    const auto part = [&](int64_t first, int64_t count) {
      const auto slots = [&](const at::Tensor& x, int dim) {
        return x.narrow(dim, first, count).contiguous();
      };
      return ArrivedQueries{{{slots(p.q_BTHK, 1), slots(p.index_BT, 1), slots(p.begin_BT, 1)},
                             slots(p.dout_BTHK, 1),
                             slots(forward.lse_BHT, 2),
                             slots(delta_BHT, 2)},
                            at::full({2, count, 4, 40}, NAN, at::kFloat)};
    };
    // dq of both, rounded dk and dv
    const auto compute = [&](int polls, bool& joined) {
      ArrivedQueries one = part(550, 450), two = part(0, 550);
      at::Tensor dk = at::full(p.k_BUGK.sizes(), NAN, at::kFloat), dv = at::full_like(dk, NAN);
      at::Tensor rounded_dk = at::full_like(p.k_BUGK, NAN), rounded_dv = rounded_dk.clone();
      const NextQueries next{After(polls, two), rounded_dk, rounded_dv};
      joined = AttentionBlockBackward(one.queries, p.keys(), p.scale, one.dq_BTHK, dk, dv, {},
                                      {.set_queries = true, .set_keys = true}, &next);
      if (!joined) {
        AttentionBlockBackward(
            two.queries, p.keys(), p.scale, two.dq_BTHK, dk, dv, {},
            {.set_queries = true, .rounded_dk_BUGK = rounded_dk, .rounded_dv_BUGK = rounded_dv});
      }
      return std::vector<at::Tensor>{one.dq_BTHK, two.dq_BTHK, rounded_dk, rounded_dv};
    };
    at::set_num_threads(1);
    bool joined = true;
    const auto want = compute(1000, joined);
    EXPECT_FALSE(joined);
    EXPECT_TRUE(at::isfinite(want[2].slice(1, 0, 500)).all().item<bool>());
    for (const int polls : {0, 5}) {
      at::set_num_threads(polls == 5 ? 3 : 1);
      const auto got = compute(polls, joined);
      if (polls == 0) {
        EXPECT_TRUE(joined);
      }
      for (size_t i = 0; i < want.size(); ++i) {
        EXPECT_TRUE(at::equal(got[i].nan_to_num(9), want[i].nan_to_num(9))) << i;
      }
    }
  }
  at::set_num_threads(before);
}

TEST(AttentionBlockTest, CallsProgressOnTheCallingThreadAndPassesItsExceptionOn) {
  const Problem p =
      MakeProblem({.tokens = 900, .keys = 900, .heads = 2, .kv_heads = 2, .dim = 16}, at::kFloat);
  AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
  const int before = at::get_num_threads();
  at::set_num_threads(1);  // another thread may have taken all the tiles
  int calls = 0;
  AttentionBlockForward(p.queries(), p.keys(), p.scale, carry, [&] { ++calls; });
  EXPECT_GT(calls, 0);
  const auto fail = [] { throw Error(ErrorCode::kInternal, "transfer failed"); };
  Result r = Compute(p);
  const QueryGradientBlock queries{p.queries(), p.dout_BTHK, r.lse_BHT,
                                   AttentionDelta(p.dout_BTHK, r.out_BTHK)};
  EXPECT_THROW(
      AttentionBlockBackward(queries, p.keys(), p.scale, r.dq_BTHK, r.dk_BUGK, r.dv_BUGK, fail),
      Error);
  at::set_num_threads(before);
}

TEST(AttentionBlockTest, WrongShapesAndTypesAreNamed) {
  const Problem p =
      MakeProblem({.tokens = 10, .keys = 10, .heads = 4, .kv_heads = 2, .dim = 8}, at::kFloat);
  AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
  const auto forward = [&](const QueryBlock& queries, const KeyBlock& keys, double scale) {
    AttentionBlockForward(queries, keys, scale, carry, {});
  };
  KeyBlock odd_heads = p.keys();
  odd_heads.k_BUGK = odd_heads.v_BUGK = at::zeros({1, 10, 3, 8}, at::kFloat);
  EXPECT_THROW(forward(p.queries(), odd_heads, 1), Error);
  KeyBlock other_type = p.keys();
  other_type.k_BUGK = other_type.k_BUGK.to(at::kBFloat16);
  EXPECT_THROW(forward(p.queries(), other_type, 1), Error);
  QueryBlock long_index = p.queries();
  long_index.index_BT = long_index.index_BT.to(at::kLong);
  EXPECT_THROW(forward(long_index, p.keys(), 1), Error);
  EXPECT_THROW(forward(p.queries(), p.keys(), std::nan("")), Error);
}

}  // namespace
}  // namespace lwm::ops
