#include "lwm/ops/attention/ring_attention.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <limits>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/testing/error_of.h"
#include "tests/dist/mpi_main.h"

namespace lwm::ops {
namespace {

using testing::World;

struct Case {
  const char* name;
  int64_t rows, tokens, heads, kv_heads, head_dim;
  int64_t longest_segment = 0;  // 0: one segment per row
  at::ScalarType dtype = at::kFloat;
  double spread = 1;  // of q: scores of about spread * sqrt(head_dim)
};

// What all ranks hold together, in row order; every rank makes the same.
struct Problem {
  at::Tensor q_BSHK, k_BSGK, v_BSGK, dout_BSHK;
  std::vector<std::vector<int32_t>> begin_BS;
  double scale;
};

struct Results {
  at::Tensor out_BSHK, lse_BHS, dq_BSHK, dk_BSGK, dv_BSGK;
};

std::vector<int32_t> RandomBegins(int64_t tokens, int64_t longest, uint64_t key) {
  Random random(key);
  std::vector<int32_t> begin_S;
  while (static_cast<int64_t>(begin_S.size()) < tokens) {
    const auto first = static_cast<int32_t>(begin_S.size());
    const int64_t length = 1 + static_cast<int64_t>(random.Below(static_cast<uint64_t>(longest)));
    for (int64_t i = 0; i < length && static_cast<int64_t>(begin_S.size()) < tokens; ++i)
      begin_S.push_back(first);
  }
  return begin_S;
}

Problem MakeProblem(const Case& c) {
  at::manual_seed(17);
  const auto random = [&](int64_t heads) {
    return at::randn({c.rows, c.tokens, heads, c.head_dim}).to(c.dtype);
  };
  Problem p{random(c.heads) * c.spread,
            random(c.kv_heads),
            random(c.kv_heads),
            random(c.heads),
            {},
            0.9 / std::sqrt(static_cast<double>(c.head_dim))};
  for (int64_t row = 0; row < c.rows; ++row) {
    p.begin_BS.push_back(c.longest_segment
                             ? RandomBegins(c.tokens, c.longest_segment, 5 + row)
                             : std::vector<int32_t>(static_cast<size_t>(c.tokens), 0));
  }
  return p;
}

// Whole tensors in f64, straight from the formulas.
Results Reference(const Problem& p) {
  const int64_t rows = p.q_BSHK.size(0), tokens = p.q_BSHK.size(1),
                group = p.q_BSHK.size(2) / p.k_BSGK.size(2);
  const auto heads_first = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
  const at::Tensor q = heads_first(p.q_BSHK), dout = heads_first(p.dout_BSHK);
  const at::Tensor k = heads_first(p.k_BSGK).repeat_interleave(group, 1);
  const at::Tensor v = heads_first(p.v_BSGK).repeat_interleave(group, 1);
  at::Tensor allowed_B1SS = at::zeros({rows, 1, tokens, tokens}, at::kBool);
  for (int64_t row = 0; row < rows; ++row) {
    for (int64_t i = 0; i < tokens; ++i)
      allowed_B1SS[row][0][i].slice(0, p.begin_BS[row][i], i + 1).fill_(true);
  }
  const at::Tensor score =
      (at::matmul(q, k.transpose(2, 3)) * p.scale)
          .masked_fill(~allowed_B1SS, -std::numeric_limits<double>::infinity());
  const at::Tensor lse = at::logsumexp(score, {-1});
  const at::Tensor weight = at::exp(score - lse.unsqueeze(-1));
  const at::Tensor out = at::matmul(weight, v);
  const at::Tensor dweight = at::matmul(dout, v.transpose(2, 3));
  const at::Tensor dscore = weight * (dweight - (dout * out).sum(-1, true)) * p.scale;
  const auto sum_groups = [&](const at::Tensor& x) {
    return x.view({rows, -1, group, tokens, x.size(3)}).sum(2).transpose(1, 2);
  };
  return {out.transpose(1, 2), lse, at::matmul(dscore, k).transpose(1, 2),
          sum_groups(at::matmul(dscore.transpose(2, 3), q)),
          sum_groups(at::matmul(weight.transpose(2, 3), dout))};
}

// This rank's slots of a whole tensor; empty slots hold what nobody may look at.
at::Tensor Take(const at::Tensor& x_BSHK, const SequenceView& view) {
  at::Tensor local = at::full({x_BSHK.size(0), view.tokens(), x_BSHK.size(2), x_BSHK.size(3)}, 7,
                              x_BSHK.options());
  const at::Tensor index_BT = view.index_PBT[view.rank()];
  for (int64_t row = 0; row < view.rows(); ++row) {
    for (int64_t t = 0; t < view.tokens(); ++t) {
      const int64_t i = index_BT[row][t].item<int32_t>();
      if (i >= 0) local[row][t].copy_(x_BSHK[row][i]);
    }
  }
  return local;
}

// The whole tensor from all ranks' slots.
at::Tensor Assemble(const at::Tensor& local_BTHK, const SequenceView& view, int64_t tokens) {
  at::Tensor whole =
      at::zeros({local_BTHK.size(0), tokens, local_BTHK.size(2), local_BTHK.size(3)});
  const at::Tensor index_BT = view.index_PBT[view.rank()];
  for (int64_t row = 0; row < view.rows(); ++row) {
    for (int64_t t = 0; t < view.tokens(); ++t) {
      const int64_t i = index_BT[row][t].item<int32_t>();
      if (i >= 0) whole[row][i].copy_(local_BTHK[row][t]);
    }
  }
  if (view.sp) {
    view.sp->AllReduceSum(std::span(whole.data_ptr<float>(), static_cast<size_t>(whole.numel())));
  }
  return whole;
}

void ExpectEmptySlotsAreZero(const AttentionResult& forward, const at::Tensor& dq,
                             const at::Tensor& dk, const SequenceView& view) {
  const at::Tensor empty_BT = view.index_PBT[view.rank()] < 0;
  EXPECT_EQ(forward.out_BTHK.index({empty_BT}).ne(0).sum().item<int64_t>(), 0);
  EXPECT_EQ(dq.index({empty_BT}).ne(0).sum().item<int64_t>(), 0);
  EXPECT_EQ(dk.index({empty_BT}).ne(0).sum().item<int64_t>(), 0);
  const at::Tensor lse_BTH = forward.lse_BHT.transpose(1, 2).index({empty_BT});
  EXPECT_TRUE(lse_BTH.eq(-std::numeric_limits<double>::infinity()).all().item<bool>());
}

Results RunRing(const Problem& p, const SequenceView& view, CirculatedSide circulated) {
  const int64_t tokens = p.q_BSHK.size(1);
  const RingAttention attention(view);
  const Qkv qkv{Take(p.q_BSHK, view), Take(p.k_BSGK, view), Take(p.v_BSGK, view)};
  const AttentionResult forward = attention.Forward(qkv, p.scale);
  const AttentionGradients gradients =
      attention.Backward(Take(p.dout_BSHK, view), qkv, forward, p.scale, circulated);
  ExpectEmptySlotsAreZero(forward, gradients.dq_BTHK, gradients.dk_BTGK, view);
  const auto assemble = [&](const at::Tensor& x) { return Assemble(x, view, tokens); };
  return {assemble(forward.out_BTHK),
          assemble(forward.lse_BHT.transpose(1, 2).unsqueeze(-1)).squeeze(-1).transpose(1, 2),
          assemble(gradients.dq_BTHK), assemble(gradients.dk_BTGK), assemble(gradients.dv_BTGK)};
}

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor w = want.to(at::kDouble);
  return ((got.to(at::kDouble) - w).abs().max() / w.abs().max().clamp_min(1e-3)).item<double>();
}

void ExpectNear(const Results& got, const Results& want, double tolerance,
                const std::string& what) {
  EXPECT_LE(RelativeError(got.out_BSHK, want.out_BSHK), tolerance) << what << " out";
  EXPECT_LE(RelativeError(got.lse_BHS, want.lse_BHS), tolerance) << what << " lse";
  EXPECT_LE(RelativeError(got.dq_BSHK, want.dq_BSHK), tolerance) << what << " dq";
  EXPECT_LE(RelativeError(got.dk_BSGK, want.dk_BSGK), tolerance) << what << " dk";
  EXPECT_LE(RelativeError(got.dv_BSGK, want.dv_BSGK), tolerance) << what << " dv";
}

void ExpectRingEqualsReference(const Case& c) {
  const Problem p = MakeProblem(c);
  const Results reference = Reference(p);
  std::vector<dist::SequencePlan> one, zigzag, balanced;
  for (const auto& begin_S : p.begin_BS) {
    one.push_back(dist::PlanZigzag(c.tokens, 1, begin_S));
    zigzag.push_back(dist::PlanZigzag(c.tokens, World().size(), begin_S));
    balanced.push_back(dist::PlanBalanced(c.tokens, World().size(), begin_S));
  }
  const Results alone = RunRing(p, MakeSequenceView(one, nullptr), CirculatedSide::kLighter);
  const bool f32 = c.dtype == at::kFloat;
  ExpectNear(alone, reference, f32 ? 5e-6 : 2e-2, Cat(c.name, " alone"));
  for (const auto* plans : {&zigzag, &balanced}) {
    const SequenceView view = MakeSequenceView(*plans, &World());
    for (const auto circulated : {CirculatedSide::kKeys, CirculatedSide::kQueries}) {
      const std::string what = Cat(c.name, plans == &balanced ? " balanced" : " zigzag",
                                   circulated == CirculatedSide::kKeys ? " keys" : " queries");
      const Results ring = RunRing(p, view, circulated);
      ExpectNear(ring, reference, f32 ? 5e-6 : 2e-2, what);
      if (f32) ExpectNear(ring, alone, 2e-6, what + " against one rank");
    }
  }
}

TEST(RingAttentionTest, EqualsOneDeviceForEveryHeadLayout) {
  ExpectRingEqualsReference({"mha", 2, 83, 3, 3, 32});
  ExpectRingEqualsReference({"gqa", 1, 131, 6, 2, 16});
  ExpectRingEqualsReference({"mqa", 2, 67, 4, 1, 64});
  ExpectRingEqualsReference({"odd head dim", 1, 45, 2, 1, 12});
}

TEST(RingAttentionTest, EqualsOneDeviceForPackedRows) {
  ExpectRingEqualsReference({"short segments", 2, 190, 4, 2, 16, 20});
  ExpectRingEqualsReference({"long segments", 2, 301, 2, 2, 32, 150});
  ExpectRingEqualsReference({"single tokens", 1, 40, 2, 1, 16, 1});
}

TEST(RingAttentionTest, RowsShorterThanTheRingLeaveSlotsEmpty) {
  for (const int64_t tokens : {1, 2, 3, 5, 7})
    ExpectRingEqualsReference({"tiny", 2, tokens, 2, 1, 16});
}

TEST(RingAttentionTest, Bf16StaysNearTheReference) {
  ExpectRingEqualsReference({"bf16 gqa", 1, 257, 4, 2, 64, 0, at::kBFloat16});
  ExpectRingEqualsReference({"bf16 packed mha", 2, 150, 2, 2, 32, 60, at::kBFloat16});
}

// Some rows of the second segment hold NaN. Whether keys travel packed or in rows, it stays there.
TEST(RingAttentionTest, KeysTravelPackedOrInRows) {
  const Case c{"travelling keys", 1, 2111, 4, 2, 40, 0, at::kBFloat16};
  Problem p = MakeProblem(c);
  std::fill(p.begin_BS[0].begin() + 900, p.begin_BS[0].end(), 900);
  const Results want = Reference(p);
  p.k_BSGK.slice(1, 1000, 1003).fill_(NAN);
  SequenceView view =
      MakeSequenceView({dist::PlanZigzag(c.tokens, World().size(), p.begin_BS[0])}, &World());
  EXPECT_TRUE(view.same_packed_layout);
  const Qkv qkv{Take(p.q_BSHK, view), Take(p.k_BSGK, view), Take(p.v_BSGK, view)};
  for (const bool alike : {true, false}) {
    view.same_packed_layout = alike;
    const at::Tensor out =
        Assemble(RingAttention(view).Forward(qkv, p.scale).out_BTHK, view, c.tokens);
    EXPECT_LE(RelativeError(out.slice(1, 0, 1000), want.out_BSHK.slice(1, 0, 1000)), 2e-2);
    EXPECT_TRUE(out.slice(1, 1003).isnan().all().item<bool>());
  }
}

TEST(RingAttentionTest, LargeScoresNeedTheRunningMaximum) {
  const Case c{"large scores", 1, 97, 2, 1, 64, 0, at::kFloat, 12};
  const Problem p = MakeProblem(c);
  const auto plan = dist::PlanZigzag(c.tokens, World().size(), {});
  const Results ring = RunRing(p, MakeSequenceView({plan}, &World()), CirculatedSide::kLighter);
  ExpectNear(ring, Reference(p), 4e-5, c.name);
  const Results alone = RunRing(p, MakeSequenceView({dist::PlanZigzag(c.tokens, 1, {})}, nullptr),
                                CirculatedSide::kLighter);
  ExpectNear(ring, alone, 2e-6, "large scores against one rank");
}

TEST(RingAttentionTest, RepeatsItsBits) {
  const Case c{"repeat", 1, 143, 4, 2, 32, 50};
  const Problem p = MakeProblem(c);
  const SequenceView view =
      MakeSequenceView({dist::PlanBalanced(c.tokens, World().size(), p.begin_BS[0])}, &World());
  const Results a = RunRing(p, view, CirculatedSide::kLighter),
                b = RunRing(p, view, CirculatedSide::kLighter);
  EXPECT_TRUE(a.out_BSHK.equal(b.out_BSHK));
  EXPECT_TRUE(a.dq_BSHK.equal(b.dq_BSHK));
  EXPECT_TRUE(a.dk_BSGK.equal(b.dk_BSGK));
  EXPECT_TRUE(a.dv_BSGK.equal(b.dv_BSGK));
}

TEST(RingAttentionTest, WrongShapesAreNamed) {
  const SequenceView view = MakeSequenceView({dist::PlanZigzag(8, World().size(), {})}, &World());
  const at::Tensor q = at::zeros({1, view.tokens(), 3, 16});
  const at::Tensor k = at::zeros({1, view.tokens(), 2, 16});
  const RingAttention attention(view);
  EXPECT_ERROR(attention.Forward({q, k, k}, 1.0), kInvalidArgument);
  EXPECT_ERROR(attention.Forward({q, q.to(at::kBFloat16), q}, 1.0), kInvalidArgument);
  EXPECT_ERROR(attention.Forward({q.transpose(2, 3), q, q}, 1.0), kInvalidArgument);
  const at::Tensor longer = at::zeros({1, view.tokens() + 1, 3, 16});
  EXPECT_ERROR(attention.Forward({longer, longer, longer}, 1.0), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
