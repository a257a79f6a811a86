#include "lwm/ops/attention/cached.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <limits>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

constexpr double kInfinity = std::numeric_limits<double>::infinity();

struct Case {
  int64_t rows, tokens, keys, heads, kv_heads, head_dim, offset;
  bool causal = true;
  bool padded = false;  // row b begins at key 3 * b + 1
  at::ScalarType dtype = at::kFloat;
};

struct Inputs {
  at::Tensor q_BTHK, k_BSGK, v_BSGK, begin_B;
  double scale;
};

Inputs MakeInputs(const Case& c) {
  at::manual_seed(23);
  const auto random = [&](int64_t tokens, int64_t heads) {
    return at::randn({c.rows, tokens, heads, c.head_dim}).to(c.dtype);
  };
  Inputs in{random(c.tokens, c.heads),
            random(c.keys, c.kv_heads),
            random(c.keys, c.kv_heads),
            {},
            1.3 / std::sqrt(static_cast<double>(c.head_dim))};
  if (c.padded) in.begin_B = at::arange(c.rows, at::kInt) * 3 + 1;
  return in;
}

// out [B,T,H,K] and lse [B,H,T] in f64 from the formulas.
std::pair<at::Tensor, at::Tensor> Reference(const Case& c, const Inputs& in) {
  const auto heads_first = [](const at::Tensor& x) { return x.to(at::kDouble).transpose(1, 2); };
  const int64_t group = c.heads / c.kv_heads;
  const at::Tensor k = heads_first(in.k_BSGK).repeat_interleave(group, 1);
  const at::Tensor v = heads_first(in.v_BSGK).repeat_interleave(group, 1);
  const at::Tensor key_S = at::arange(c.keys);
  at::Tensor hidden_BTS = at::zeros({c.rows, c.tokens, c.keys}, at::kBool);
  if (c.causal) hidden_BTS |= key_S > at::arange(c.offset, c.offset + c.tokens).view({-1, 1});
  if (in.begin_B.defined()) hidden_BTS |= key_S < in.begin_B.view({-1, 1, 1});
  const at::Tensor score = (at::matmul(heads_first(in.q_BTHK), k.transpose(2, 3)) * in.scale)
                               .masked_fill(hidden_BTS.unsqueeze(1), -kInfinity);
  const at::Tensor lse = at::logsumexp(score, {-1});
  const at::Tensor weight = at::softmax(score, -1).nan_to_num(0);
  return {at::matmul(weight, v).transpose(1, 2), lse};
}

double RelativeError(const at::Tensor& got, const at::Tensor& want) {
  const at::Tensor finite = want.isfinite();
  EXPECT_TRUE(got.isfinite().equal(finite));
  const at::Tensor w = want.masked_fill(~finite, 0),
                   g = got.to(at::kDouble).masked_fill(~finite, 0);
  return ((g - w).abs().max() / w.abs().max().clamp_min(1e-3)).item<double>();
}

void ExpectMatches(const Case& c, const Inputs& in, const char* what) {
  const auto [out, lse] = Reference(c, in);
  at::Tensor got_lse;
  const at::Tensor got = CachedAttention(in.q_BTHK, {in.k_BSGK, in.v_BSGK, in.begin_B}, c.offset,
                                         c.causal, in.scale, &got_lse);
  EXPECT_EQ(got.scalar_type(), c.dtype);
  EXPECT_LE(RelativeError(got, out), c.dtype == at::kFloat ? 2e-6 : 1e-2) << what;
  EXPECT_LE(RelativeError(got_lse, lse), c.dtype == at::kFloat ? 1e-6 : 1.2e-5) << what;
}

// The same values where the heads of a key lie together, where they lie apart, and in a cache with
// room to spare.
void ExpectMatchesInEveryLayout(const Case& c, const char* what) {
  Inputs in = MakeInputs(c);
  ExpectMatches(c, in, what);
  const auto heads_apart = [](const at::Tensor& x) {
    return x.transpose(1, 2).contiguous().transpose(1, 2);
  };
  Inputs apart = in;
  apart.k_BSGK = heads_apart(in.k_BSGK);
  apart.v_BSGK = heads_apart(in.v_BSGK);
  ExpectMatches(c, apart, what);
  Inputs roomy = in;
  for (at::Tensor* x : {&roomy.k_BSGK, &roomy.v_BSGK}) {
    const at::Tensor cache =
        at::full({c.rows, c.kv_heads + 1, c.keys + 5, c.head_dim}, 1e30, x->options());
    at::Tensor view = cache.narrow(1, 1, c.kv_heads).narrow(2, 2, c.keys).transpose(1, 2);
    view.copy_(*x);
    *x = view;
  }
  ExpectMatches(c, roomy, what);
}

TEST(OpsCachedAttentionTest, DecodingOneTokenMatchesFloat64) {
  ExpectMatchesInEveryLayout({2, 1, 77, 4, 4, 16, 76}, "mha");
  ExpectMatchesInEveryLayout({1, 1, 1500, 8, 2, 64, 1499}, "gqa, several ranges");
  ExpectMatchesInEveryLayout({3, 1, 90, 6, 1, 20, 60}, "mqa, cache longer than the past");
  ExpectMatchesInEveryLayout({2, 1, 1, 2, 1, 32, 0}, "the first token");
  ExpectMatchesInEveryLayout({2, 1, 1300, 4, 2, 64, 1299, true, true, at::kBFloat16}, "bf16");
}

TEST(OpsCachedAttentionTest, FewTokensSeeTheirOwnPast) {
  ExpectMatchesInEveryLayout({2, 5, 1100, 4, 2, 32, 1090}, "at the end");
  ExpectMatchesInEveryLayout({1, 16, 2100, 2, 2, 16, 1010}, "across a range's edge");
  ExpectMatchesInEveryLayout({2, 7, 7, 4, 2, 16, 0}, "from the start");
  ExpectMatchesInEveryLayout({1, 4, 600, 8, 2, 64, 590, true, false, at::kBFloat16}, "bf16");
}

TEST(OpsCachedAttentionTest, PrefillAndChunksMatchFloat64) {
  ExpectMatchesInEveryLayout({2, 133, 133, 4, 2, 32, 0}, "prompt");
  ExpectMatchesInEveryLayout({1, 50, 333, 4, 1, 16, 211}, "chunk");
  ExpectMatchesInEveryLayout({1, 40, 4200, 2, 2, 16, 4150}, "chunk, thousands of keys");
  ExpectMatchesInEveryLayout({2, 64, 200, 4, 4, 64, 100, true, true, at::kBFloat16}, "bf16");
}

TEST(OpsCachedAttentionTest, LeftPaddingIsNotSeen) {
  ExpectMatchesInEveryLayout({3, 1, 40, 2, 1, 16, 39, true, true}, "decode");
  ExpectMatchesInEveryLayout({3, 5, 9, 2, 1, 16, 0, true, true}, "few");
  ExpectMatchesInEveryLayout({3, 30, 40, 2, 1, 16, 0, true, true}, "prompt");
}

TEST(OpsCachedAttentionTest, WithoutCausalityAllKeysAreSeen) {
  ExpectMatchesInEveryLayout({2, 3, 700, 4, 2, 16, 0, false, true}, "few");
  ExpectMatchesInEveryLayout({2, 45, 70, 4, 2, 16, 0, false}, "many");
}

TEST(OpsCachedAttentionTest, ThreadsDoNotChangeTheBits) {
  const Case c{2, 1, 5000, 8, 2, 64, 4999};
  const Inputs in = MakeInputs(c);
  const int threads = at::get_num_threads();
  const auto run = [&](int n) {
    at::set_num_threads(n);
    return CachedAttention(in.q_BTHK, {in.k_BSGK, in.v_BSGK, in.begin_B}, c.offset, true, in.scale);
  };
  const at::Tensor one = run(1), three = run(3);
  at::set_num_threads(threads);
  EXPECT_TRUE(one.equal(three));
}

TEST(OpsCachedAttentionTest, KeysThatNobodySeesMayBeAnything) {
  const Case c{1, 4, 600, 4, 2, 32, 590};
  Inputs in = MakeInputs(c);
  const auto run = [&] {
    return CachedAttention(in.q_BTHK, {in.k_BSGK, in.v_BSGK}, c.offset, true, in.scale);
  };
  const at::Tensor before = run();
  for (at::Tensor* x : {&in.k_BSGK, &in.v_BSGK})
    x->narrow(1, 593, 7).fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor after = run();
  EXPECT_TRUE(before.narrow(1, 0, 3).equal(after.narrow(1, 0, 3)));
  EXPECT_TRUE(after.narrow(1, 3, 1).isnan().all().item<bool>());
}

// Its only key lies in one of several ranges; the others are empty.
TEST(OpsCachedAttentionTest, NanOfARowWithOneKeyIsNotLost) {
  Inputs in = MakeInputs({1, 1, 1100, 4, 2, 32, 1099});
  in.q_BTHK.fill_(std::numeric_limits<float>::quiet_NaN());
  const at::Tensor begin_B = at::full({1}, 1099, at::kInt);
  const at::Tensor out =
      CachedAttention(in.q_BTHK, {in.k_BSGK, in.v_BSGK, begin_B}, 1099, true, in.scale);
  EXPECT_TRUE(out.isnan().all().item<bool>());
}

TEST(OpsCachedAttentionTest, MismatchedInputsAreTheCallersError) {
  const at::Tensor q = at::zeros({1, 2, 4, 16}), k = at::zeros({1, 9, 2, 16});
  EXPECT_ERROR(CachedAttention(q, {k, k}, 8, true, 1), kInvalidArgument);
  EXPECT_ERROR(CachedAttention(q, {k, k.narrow(1, 0, 8)}, 0, true, 1), kInvalidArgument);
  EXPECT_ERROR(CachedAttention(q.to(at::kBFloat16), {k, k}, 0, true, 1), kInvalidArgument);
  EXPECT_ERROR(CachedAttention(q, {k, k, at::zeros({1}, at::kLong)}, 0, true, 1), kInvalidArgument);
  EXPECT_ERROR(CachedAttention(at::zeros({1, 2, 3, 16}), {k, k}, 0, true, 1), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
