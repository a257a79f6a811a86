#include "lwm/kernels/attention/decode.h"

#include <gtest/gtest.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

constexpr float kNaN = std::numeric_limits<float>::quiet_NaN();
constexpr float kHuge = 1e30f;  // its square is infinite

template <class Element>
Element FromFloat(float x) {
  if constexpr (sizeof(Element) == 2) {
    return static_cast<uint16_t>(std::bit_cast<uint32_t>(x) >> 16);  // truncated: exact afterwards
  } else {
    return x;
  }
}
float ToFloat(float x) { return x; }
float ToFloat(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

template <class Element>
std::vector<Element> RandomVector(size_t n, float size, uint64_t key) {
  Random random(key);
  std::vector<Element> x(n);
  for (auto& value : x)
    value = FromFloat<Element>(static_cast<float>(random.Uniform() * 2 - 1) * size);
  return x;
}

template <class Element>
struct Problem {
  size_t queries, dim, keys;
  size_t stride;  // of both K and V
  float score_size = 4;
  std::vector<Element> q_MK, k, v;

  Problem(size_t m, size_t c, size_t n, size_t gap, float size = 4)
      : queries(m), dim(c), keys(n), stride(c + gap), score_size(size) {
    q_MK = RandomVector<Element>(m * c, size, 1);
    k = RandomVector<Element>(n * stride, 1, 2);
    v = RandomVector<Element>(n * stride, 1, 3);
  }
  float scale() const { return 1.7f / std::sqrt(static_cast<float>(dim)); }
};

struct State {
  std::vector<float> max_M, sum_M, acc_MK;
  State(size_t queries, size_t dim) : max_M(queries), sum_M(queries), acc_MK(queries * dim) {
    ClearDecode(view(), queries, dim);
  }
  DecodeState view() { return {max_M.data(), sum_M.data(), acc_MK.data()}; }
};

// Keys [first, first + count) of the problem into the state.
template <class Element>
void Attend(const Problem<Element>& p, size_t first, size_t count, State& state) {
  DecodeKeys<Element> keys;
  keys.k = p.k.data() + first * p.stride;
  keys.v = p.v.data() + first * p.stride;
  keys.keys = count;
  keys.k_stride = keys.v_stride = p.stride;
  keys.next_k = p.k.data();
  keys.next_keys = std::min<size_t>(p.keys, 7);
  DecodeAttention(p.q_MK.data(), p.queries, p.dim, keys, p.scale(), state.view());
}

// Worst |out - reference| and |lse - reference| in f64.
template <class Element>
double WorstError(const Problem<Element>& p, const State& state) {
  double worst = 0;
  for (size_t m = 0; m < p.queries; ++m) {
    std::vector<double> score(p.keys), out(p.dim, 0);
    double max = -1e300, sum = 0;
    for (size_t n = 0; n < p.keys; ++n) {
      for (size_t c = 0; c < p.dim; ++c)
        score[n] += double{ToFloat(p.q_MK[m * p.dim + c])} * ToFloat(p.k[n * p.stride + c]);
      score[n] *= p.scale();
      max = std::max(max, score[n]);
    }
    for (size_t n = 0; n < p.keys; ++n) {
      const double weight = std::exp(score[n] - max);
      sum += weight;
      for (size_t c = 0; c < p.dim; ++c) out[c] += weight * ToFloat(p.v[n * p.stride + c]);
    }
    if (p.keys == 0) {
      EXPECT_EQ(state.max_M[m], -std::numeric_limits<float>::infinity());
      EXPECT_EQ(state.sum_M[m], 0);
      for (size_t c = 0; c < p.dim; ++c) EXPECT_EQ(state.acc_MK[m * p.dim + c], 0);
      continue;
    }
    for (size_t c = 0; c < p.dim; ++c) {
      worst = std::max(
          worst, std::abs(double{state.acc_MK[m * p.dim + c]} / state.sum_M[m] - out[c] / sum));
    }
    worst = std::max(
        worst, std::abs(state.max_M[m] + std::log(double{state.sum_M[m]}) - max - std::log(sum)));
  }
  return worst;
}

double LargestScore(double size, size_t dim) { return 1.7 * size * std::sqrt(double(dim)) / 2; }

// The header's bound; scores of these problems stay below LargestScore.
double Bound(double size, size_t dim) { return 0x1p-24 * (64 + 2 * LargestScore(size, dim)); }

double worst_of_bound = 0;

template <class Element>
void ExpectMatchesReference(const Problem<Element>& p, const char* target) {
  State state(p.queries, p.dim);
  Attend(p, 0, p.keys, state);
  const double error = WorstError(p, state);
  EXPECT_LE(error, Bound(p.score_size, p.dim))
      << target << " queries " << p.queries << " dim " << p.dim << " keys " << p.keys;
  worst_of_bound = std::max(worst_of_bound, error / Bound(p.score_size, p.dim));
}

TEST(DecodeAttentionTest, MatchesReferenceForEveryDimOnEveryTarget) {
  ForEachTarget([](const char* target) {
    for (size_t dim = 1; dim <= 67; ++dim) {
      ExpectMatchesReference(Problem<float>(1 + dim % 5, dim, 37, dim % 3), target);
      ExpectMatchesReference(Problem<uint16_t>(1 + dim % 5, dim, 37, dim % 3), target);
    }
    for (const size_t dim : {96, 128, 256}) {
      ExpectMatchesReference(Problem<float>(4, dim, 70, 0), target);
      ExpectMatchesReference(Problem<uint16_t>(4, dim, 70, 0), target);
    }
  });
  RecordProperty("worst_of_bound", std::to_string(worst_of_bound));
}

TEST(DecodeAttentionTest, MatchesReferenceForEveryNumberOfKeysAndQueries) {
  ForEachTarget([](const char* target) {
    for (size_t keys = 0; keys <= 67; ++keys) {
      ExpectMatchesReference(Problem<float>(2, 16, keys, 0), target);
      ExpectMatchesReference(Problem<uint16_t>(3, 32, keys, 5), target);
    }
    for (size_t queries = 1; queries <= 18; ++queries)
      ExpectMatchesReference(Problem<uint16_t>(queries, 64, 50, 64), target);
    ExpectMatchesReference(Problem<uint16_t>(1, 128, 3000, 0), target);
    ExpectMatchesReference(Problem<float>(2, 64, 300, 0, 100), target);
  });
}

TEST(DecodeAttentionTest, RunsMergeToTheWhole) {
  Problem<uint16_t> p(6, 64, 200, 0);
  State whole(p.queries, p.dim), parts(p.queries, p.dim), second(p.queries, p.dim);
  Attend(p, 0, 41, parts);
  Attend(p, 41, 159, second);
  MergeDecode(second.view(), p.queries, p.dim, parts.view());
  EXPECT_LE(WorstError(p, parts), Bound(p.score_size, p.dim));
  Attend(p, 0, 100, whole);
  Attend(p, 100, 100, whole);  // carried instead of merged
  EXPECT_LE(WorstError(p, whole), Bound(p.score_size, p.dim));
}

TEST(DecodeAttentionTest, MergingWithNothingChangesNothing) {
  const Problem<float> p(3, 20, 45, 0);
  State state(p.queries, p.dim), nothing(p.queries, p.dim);
  Attend(p, 0, p.keys, state);
  const State before = state;
  MergeDecode(nothing.view(), p.queries, p.dim, state.view());
  EXPECT_EQ(state.acc_MK, before.acc_MK);
  MergeDecode(state.view(), p.queries, p.dim, nothing.view());
  EXPECT_EQ(nothing.acc_MK, before.acc_MK);
  EXPECT_EQ(nothing.sum_M, before.sum_M);
}

TEST(DecodeAttentionTest, NaNStaysInItsQuery) {
  ForEachTarget([](const char* target) {
    for (const size_t dim : {20, 64}) {
      Problem<float> p(5, dim, 50, 0);
      p.q_MK[1 * dim] = kNaN;
      State state(p.queries, dim);
      Attend(p, 0, p.keys, state);
      for (size_t m = 0; m < p.queries; ++m)
        EXPECT_EQ(std::isnan(state.acc_MK[m * dim]), m == 1) << target << m;
      p.q_MK[1 * dim] = 0;
      p.k[33 * p.stride + dim - 1] = kNaN;
      State all(p.queries, dim);
      Attend(p, 0, p.keys, all);
      for (size_t m = 0; m < p.queries; ++m) EXPECT_TRUE(std::isnan(all.acc_MK[m * dim])) << target;
    }
  });
}

// A query that saw only NaN has no maximum, like one that saw no key; a merge must still keep it.
TEST(DecodeAttentionTest, NaNAloneIsNotNothing) {
  ForEachTarget([](const char* target) {
    Problem<float> p(2, 20, 1, 0);
    p.q_MK[0] = kNaN;
    State state(p.queries, p.dim), nothing(p.queries, p.dim);
    Attend(p, 0, p.keys, state);
    MergeDecode(state.view(), p.queries, p.dim, nothing.view());
    EXPECT_TRUE(std::isnan(nothing.sum_M[0]) && std::isnan(nothing.acc_MK[0])) << target;
    EXPECT_EQ(nothing.sum_M[1], 1) << target;
  });
}

TEST(DecodeAttentionTest, ScoresOfMinusInfinityAddNothing) {
  ForEachTarget([](const char* target) {
    Problem<float> p(2, 20, 70, 0);
    for (size_t n = 0; n < 33 * p.stride; n += p.stride) p.k[n] = -kHuge;
    for (size_t m = 0; m < p.queries; ++m) p.q_MK[m * p.dim] = kHuge;
    for (size_t n = 33 * p.stride; n < p.k.size(); n += p.stride) p.k[n] = 0;
    State all(p.queries, p.dim), rest(p.queries, p.dim);
    Attend(p, 0, p.keys, all);
    Attend(p, 33, p.keys - 33, rest);
    for (size_t i = 0; i < rest.acc_MK.size(); ++i)
      EXPECT_NEAR(all.acc_MK[i], rest.acc_MK[i], 1e-5f) << target;
  });
}

}  // namespace
}  // namespace lwm::kernels
