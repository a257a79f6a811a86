#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <functional>

#include "lwm/ops/attention/block.h"
#include "lwm/testing/attention_problem.h"

namespace lwm::ops {
namespace {

using testing_support::MakeProblem;
using testing_support::Problem;
using testing_support::Result;

// A source that has nothing for the first `polls` polls, and `what` after them.
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

TEST(AttentionJoiningTest, KeysThatJoinWhenTheyArriveGiveTheSameBits) {
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

TEST(AttentionJoiningTest, QueriesThatJoinWhenTheyArriveGiveTheSameBits) {
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
      joined = AttentionBlockBackward(one.queries, p.keys(), p.scale, {one.dq_BTHK, dk, dv}, {},
                                      {.set_queries = true, .set_keys = true}, &next);
      if (!joined) {
        AttentionBlockBackward(
            two.queries, p.keys(), p.scale, {two.dq_BTHK, dk, dv}, {},
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

}  // namespace
}  // namespace lwm::ops
