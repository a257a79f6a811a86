#include "lwm/ops/attention/block.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/attention_problem.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

using testing_support::Case;
using testing_support::Compute;
using testing_support::Difference;
using testing_support::MakeProblem;
using testing_support::Problem;
using testing_support::Reference;
using testing_support::Result;
using testing_support::Worst;

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

// Packed copies of all rows and heads would take more than a pass may: here of keys, there of
// queries.
TEST(AttentionBlockTest, SeveralPassesGiveWhatOneGives) {
  for (const Case& c : {Case{8, 16, 1100, 64, 64, 8, {}, 1084}, Case{8, 600, 64, 64, 64, 8}}) {
    const Problem p = MakeProblem(c, at::kBFloat16);
    const Result all = Compute(p);
    for (const int64_t row : {0, 7}) {
      const auto of_row = [&](const at::Tensor& x) { return x.slice(0, row, row + 1); };
      const Result one =
          Compute({of_row(p.q_BTHK), of_row(p.k_BUGK), of_row(p.v_BUGK), of_row(p.dout_BTHK),
                   of_row(p.index_BT), of_row(p.begin_BT), of_row(p.key_index_BU), p.scale});
      EXPECT_TRUE(at::equal(of_row(all.out_BTHK), one.out_BTHK));
      EXPECT_TRUE(at::equal(of_row(all.lse_BHT), one.lse_BHT));
      EXPECT_TRUE(at::equal(of_row(all.dq_BTHK), one.dq_BTHK));
      EXPECT_LE(Difference(of_row(all.dk_BUGK), one.dk_BUGK), 1e-6);
      EXPECT_LE(Difference(of_row(all.dv_BUGK), one.dv_BUGK), 1e-6);
    }
  }
}

TEST(AttentionBlockTest, AddsToWhatIsThere) {
  const Problem p =
      MakeProblem({.tokens = 50, .keys = 50, .heads = 2, .kv_heads = 2, .dim = 16}, at::kFloat);
  const Result r = Compute(p);
  const QueryGradientBlock queries{p.queries(), p.dout_BTHK, r.lse_BHT,
                                   AttentionDelta(p.dout_BTHK, r.out_BTHK)};
  at::Tensor dq = at::ones_like(r.dq_BTHK), dk = at::ones_like(r.dk_BUGK),
             dv = at::ones_like(r.dv_BUGK);
  AttentionBlockBackward(queries, p.keys(), p.scale, {dq, dk, dv}, {});
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
      AttentionBlockBackward(queries, p.keys(), p.scale, {dq_sum, dk_sum, dv_sum}, {}, options);
      const double bound = rounds && type == at::kBFloat16 ? 4e-3 : 0;  // rounding to bf16
      EXPECT_LE(Difference(dq, want.dq_BTHK), bound);
      EXPECT_LE(Difference(dk, want.dk_BUGK), bound);
      EXPECT_LE(Difference(dv, want.dv_BUGK), bound);
    }
  }
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
  EXPECT_ERROR(
      AttentionBlockBackward(queries, p.keys(), p.scale, {r.dq_BTHK, r.dk_BUGK, r.dv_BUGK}, fail),
      kInternal);
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
  EXPECT_ERROR(forward(p.queries(), odd_heads, 1), kInvalidArgument);
  KeyBlock other_type = p.keys();
  other_type.k_BUGK = other_type.k_BUGK.to(at::kBFloat16);
  EXPECT_ERROR(forward(p.queries(), other_type, 1), kInvalidArgument);
  QueryBlock long_index = p.queries();
  long_index.index_BT = long_index.index_BT.to(at::kLong);
  EXPECT_ERROR(forward(long_index, p.keys(), 1), kInvalidArgument);
  EXPECT_ERROR(forward(p.queries(), p.keys(), std::nan("")), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
