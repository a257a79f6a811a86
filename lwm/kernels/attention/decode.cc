#include "lwm/kernels/attention/decode.h"

#include <hwy/cache_control.h>

#include <algorithm>
#include <bit>
#include <cmath>
#include <cstring>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/attention/decode.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

#include "lwm/kernels/lanes-inl.h"

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace hn = hwy::HWY_NAMESPACE;

constexpr size_t kTileKeys = kDecodeTileKeys;
constexpr size_t kQueries = 4;  // per pass over a tile: their sums fit the registers
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

using D = hn::CappedTag<float, 16>;
using V = hn::Vec<D>;
constexpr size_t kLanes = hn::MaxLanes(D());
constexpr size_t kSums = kLanes >= 16 ? 16 : 8;  // accumulators of dot products in registers

inline float ToFloat(float x) { return x; }
inline float ToFloat(uint16_t x) { return std::bit_cast<float>(static_cast<uint32_t>(x) << 16); }

// Two vectors of one load for a dot product, whose order of summation is free: even elements of
// bf16 are the low halves of 32-bit lanes, odd ones the high halves. A shift and a mask widen them,
// where the order in memory would need shuffles.
HWY_INLINE void LoadPair(D d, const float* from, V& even, V& odd) {
  even = hn::LoadU(d, from);
  odd = hn::LoadU(d, from + hn::Lanes(d));
}
HWY_INLINE void LoadPair(D d, const uint16_t* from, V& even, V& odd) {
#if HWY_TARGET == HWY_SCALAR
  even = hn::Set(d, ToFloat(from[0]));
  odd = hn::Set(d, ToFloat(from[1]));
#else
  const hn::Repartition<uint16_t, D> d16;
  const hn::RebindToUnsigned<D> d32;
  const auto pairs = hn::BitCast(d32, hn::LoadU(d16, from));
  even = hn::BitCast(d, hn::ShiftLeft<16>(pairs));
  odd = hn::BitCast(d, hn::And(pairs, hn::Set(d32, 0xFFFF0000u)));
#endif
}

// The last columns, which do not fill a vector. Not inlined: head dims that need it are rare.
template <size_t M, size_t R, class Element>
HWY_NOINLINE void AddTail(const Element* q_MK, size_t begin, size_t dim, const Element* k,
                          size_t stride, float* score_MN) {
  for (size_t m = 0; m < M; ++m) {
    for (size_t r = 0; r < R; ++r) {
      float sum = 0;
      for (size_t c = begin; c < dim; ++c)
        sum += ToFloat(k[r * stride + c]) * ToFloat(q_MK[m * dim + c]);
      score_MN[m * kTileKeys + r] += sum;
    }
  }
}

// total[i] = sum of the lanes of sum[i]; destroys sum. A tree of pairwise sums, two shuffles per
// vector instead of a chain for each.
HWY_INLINE void SumLanes(D d, V (&sum)[kSums], float* total) {
  HWY_UNROLL(4)
  for (size_t first = 0; first < kSums; first += kLanes) {
#if HWY_TARGET != HWY_SCALAR
    HWY_UNROLL(4)
    for (size_t n = kLanes / 2; n > 0; n /= 2) {
      HWY_UNROLL(8)
      for (size_t i = first; i < first + n; ++i) {
        const V a = sum[2 * i - first], b = sum[2 * i - first + 1];
        sum[i] = hn::Add(hn::ConcatEven(d, b, a), hn::ConcatOdd(d, b, a));
      }
    }
#endif
    hn::StoreU(sum[first], d, total + first);
  }
}

// score_MN[m][n] = q_m . k_n for R keys and M queries, R * M <= kSums. Every load of K serves M
// queries, every load of q R keys, and kSums independent sums hide the latency of the additions.
template <size_t M, size_t R, class Element>
HWY_INLINE void ScoreBlock(const Element* q_MK, size_t dim, const Element* k, size_t stride,
                           float* score_MN) {
  const D d;
  constexpr size_t step = 2 * kLanes;
  V sum[kSums];
  HWY_UNROLL(16)
  for (size_t i = 0; i < kSums; ++i) sum[i] = hn::Zero(d);
  size_t c = 0;
  for (; c + step <= dim; c += step) {
    V q_even[M], q_odd[M];
    HWY_UNROLL(4)
    for (size_t m = 0; m < M; ++m) LoadPair(d, q_MK + m * dim + c, q_even[m], q_odd[m]);
    HWY_UNROLL(16)
    for (size_t r = 0; r < R; ++r) {
      V k_even, k_odd;
      LoadPair(d, k + r * stride + c, k_even, k_odd);
      HWY_UNROLL(4)
      for (size_t m = 0; m < M; ++m) {
        sum[m * R + r] = hn::MulAdd(k_even, q_even[m], sum[m * R + r]);
        sum[m * R + r] = hn::MulAdd(k_odd, q_odd[m], sum[m * R + r]);
      }
    }
  }
  HWY_ALIGN float total[kSums];
  SumLanes(d, sum, total);
  HWY_UNROLL(4)
  for (size_t m = 0; m < M; ++m)
    std::memcpy(score_MN + m * kTileKeys, total + m * R, R * sizeof(float));
  if (c < dim) AddTail<M, R>(q_MK, c, dim, k, stride, score_MN);
}

template <class Element>
HWY_INLINE void PrefetchRow(const Element* row, size_t dim) {
  constexpr size_t kLine = 64;  // bytes
  for (size_t c = 0; c < dim; c += kLine / sizeof(Element)) hwy::Prefetch(row + c);
}

// Rows of keys or values of one tile.
template <class Element>
struct TileRows {
  const Element* first;
  size_t count, stride;  // stride in elements
};

// Scores of a tile of keys; meanwhile fetches the V of the same tile, unless there is none.
template <size_t M, class Element>
void ScoreTile(const Element* q_MK, size_t dim, const TileRows<Element>& k_rows,
               const TileRows<Element>& v_rows, float* score_MN) {
  const auto [k, keys, stride] = k_rows;
  const Element* fetch = v_rows.first;
  // Keys at once, so that M * R sums fill the accumulators; three queries leave a quarter unused.
  constexpr size_t R = kSums / (M == 3 ? 4 : M);
  size_t n = 0;
  for (; n + R <= keys; n += R) {
    if (fetch) {
      for (size_t r = 0; r < R; ++r) PrefetchRow(fetch + (n + r) * v_rows.stride, dim);
    }
    ScoreBlock<M, R>(q_MK, dim, k + n * stride, stride, score_MN + n);
  }
  for (; n < keys; ++n) {
    if (fetch) PrefetchRow(fetch + n * v_rows.stride, dim);
    ScoreBlock<M, 1>(q_MK, dim, k + n * stride, stride, score_MN + n);
  }
}

// Scores of one query become exp(scale * score - max); updates the state's max and sum. Returns the
// factor for the state's acc. The tile is filled up with -inf, so that loops have a fixed length.
HWY_INLINE float SoftmaxRow(float* score_N, size_t keys, float scale, float& max, float& sum) {
  const D d;
  for (size_t n = 0; n < keys; ++n) score_N[n] *= scale;
  for (size_t n = keys; n < kTileKeys; ++n) score_N[n] = kMinusInfinity;
  auto largest = hn::Set(d, max);
  for (size_t n = 0; n < kTileKeys; n += hn::Lanes(d))
    largest = hn::Max(largest, hn::LoadU(d, score_N + n));
  const float new_max = hn::GetLane(hn::MaxOfLanes(d, largest));
  const float shift = new_max == kMinusInfinity ? 0.0f : new_max;  // nothing but -inf, or NaN
  auto added = hn::Zero(d);
  for (size_t n = 0; n < kTileKeys; n += hn::Lanes(d)) {
    const auto p = ExpOfNonPositive(d, hn::Sub(hn::LoadU(d, score_N + n), hn::Set(d, shift)));
    added = hn::Add(added, p);
    hn::StoreU(p, d, score_N + n);
  }
  // Before the first key acc and sum are 0, and -inf - -inf would be NaN.
  const float factor = max == kMinusInfinity ? 0.0f : std::exp(max - new_max);
  sum = sum * factor + hn::GetLane(hn::SumOfLanes(d, added));
  max = new_max;
  return factor;
}

// acc_m = acc_m * factor_m + sum over n of p_mn v_n, for C vectors of columns: they stay in
// registers over all keys of the tile.
template <size_t M, size_t C, class DC, class Element>
HWY_INLINE void AddValueColumns(DC d, const float* p_MN, const float* factor_M,
                                const TileRows<Element>& v_rows, size_t dim, float* acc_MK) {
  const auto [v, keys, stride] = v_rows;
  using VC = hn::Vec<DC>;
  const size_t lanes = hn::Lanes(d);
  VC acc[M * C];
  HWY_UNROLL(8)
  for (size_t i = 0; i < M * C; ++i) {
    acc[i] =
        hn::Mul(hn::LoadU(d, acc_MK + i / C * dim + i % C * lanes), hn::Set(d, factor_M[i / C]));
  }
  for (size_t n = 0; n < keys; ++n) {
    VC row[C];
    HWY_UNROLL(8)
    for (size_t c = 0; c < C; ++c) row[c] = LoadLanes(d, v + n * stride + c * lanes);
    HWY_UNROLL(8)
    for (size_t i = 0; i < M * C; ++i) {
      acc[i] = hn::MulAdd(hn::Set(d, p_MN[i / C * kTileKeys + n]), row[i % C], acc[i]);
    }
  }
  HWY_UNROLL(8)
  for (size_t i = 0; i < M * C; ++i) hn::StoreU(acc[i], d, acc_MK + i / C * dim + i % C * lanes);
}

template <size_t M, class Element>
void AddValues(const float* p_MN, const float* factor_M, const TileRows<Element>& v_rows,
               size_t dim, float* acc_MK) {
  constexpr size_t C = M == 1 ? 8 : M == 2 ? 4 : 2;  // enough chains to hide the FMA latency
  const D d;
  const hn::CappedTag<float, 1> one;
  const size_t lanes = hn::Lanes(d);
  const auto from = [&](size_t column) {
    return TileRows<Element>{v_rows.first + column, v_rows.count, v_rows.stride};
  };
  size_t c = 0;
  for (; c + C * lanes <= dim; c += C * lanes)
    AddValueColumns<M, C>(d, p_MN, factor_M, from(c), dim, acc_MK + c);
  for (; c + lanes <= dim; c += lanes)
    AddValueColumns<M, 1>(d, p_MN, factor_M, from(c), dim, acc_MK + c);
  for (; c < dim; ++c) AddValueColumns<M, 1>(one, p_MN, factor_M, from(c), dim, acc_MK + c);
}

// M queries over one tile.
template <size_t M, class Element>
void Tile(const Element* q_MK, size_t dim, const DecodeKeys<Element>& tile, float scale,
          const DecodeState& state, bool fetch) {
  HWY_ALIGN float score_MN[kQueries * kTileKeys];
  float factor_M[kQueries];
  const TileRows<Element> k_rows{tile.k, tile.keys, tile.k_stride};
  const TileRows<Element> v_rows{tile.v, tile.keys, tile.v_stride};
  ScoreTile<M>(q_MK, dim, k_rows, fetch ? v_rows : TileRows<Element>{}, score_MN);
  for (size_t m = 0; m < M; ++m) {
    factor_M[m] =
        SoftmaxRow(score_MN + m * kTileKeys, tile.keys, scale, state.max_M[m], state.sum_M[m]);
  }
  // The next K while this V is read. Only for the first queries of the tile: once is enough.
  if (fetch) {
    for (size_t n = 0; n < tile.next_keys; ++n) PrefetchRow(tile.next_k + n * tile.k_stride, dim);
  }
  AddValues<M>(score_MN, factor_M, v_rows, dim, state.acc_MK);
}

// All queries over one tile before the next: K and V of the tile come from memory once.
template <class Element>
void TileOfQueries(const Element* q_MK, size_t queries, size_t dim, const DecodeKeys<Element>& tile,
                   float scale, const DecodeState& state) {
  for (size_t m = 0; m < queries; m += kQueries) {
    const size_t now = std::min(kQueries, queries - m);
    const DecodeState part{state.max_M + m, state.sum_M + m, state.acc_MK + m * dim};
    const Element* q = q_MK + m * dim;
    if (now == 1) Tile<1>(q, dim, tile, scale, part, m == 0);
    if (now == 2) Tile<2>(q, dim, tile, scale, part, m == 0);
    if (now == 3) Tile<3>(q, dim, tile, scale, part, m == 0);
    if (now == 4) Tile<4>(q, dim, tile, scale, part, m == 0);
  }
}

template <class Element>
void Run(const Element* q_MK, size_t queries, size_t dim, const DecodeKeys<Element>& keys,
         float scale, const DecodeState& state) {
  for (size_t n = 0; n < keys.keys; n += kTileKeys) {
    DecodeKeys<Element> tile = keys;
    tile.k = keys.k + n * keys.k_stride;
    tile.v = keys.v + n * keys.v_stride;
    tile.keys = std::min(kTileKeys, keys.keys - n);
    // The next tile of this run or, at its end, the keys that the caller reads next.
    if (n + tile.keys < keys.keys) {
      tile.next_k = tile.k + kTileKeys * keys.k_stride;
      tile.next_keys = std::min(kTileKeys, keys.keys - n - kTileKeys);
    } else {
      tile.next_keys = std::min(kTileKeys, keys.next_keys);
    }
    TileOfQueries(q_MK, queries, dim, tile, scale, state);
  }
}

void DecodeF32(const float* q_MK, size_t queries, size_t dim, const DecodeKeys<float>& keys,
               float scale, const DecodeState& state) {
  Run(q_MK, queries, dim, keys, scale, state);
}

void DecodeBf16(const uint16_t* q_MK, size_t queries, size_t dim, const DecodeKeys<uint16_t>& keys,
                float scale, const DecodeState& state) {
  Run(q_MK, queries, dim, keys, scale, state);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(DecodeF32);
HWY_EXPORT(DecodeBf16);

void DecodeAttention(const float* q_MK, size_t queries, size_t dim, const DecodeKeys<float>& keys,
                     float scale, const DecodeState& state) noexcept {
  HWY_DYNAMIC_DISPATCH(DecodeF32)(q_MK, queries, dim, keys, scale, state);
}

void DecodeAttention(const uint16_t* q_MK, size_t queries, size_t dim,
                     const DecodeKeys<uint16_t>& keys, float scale,
                     const DecodeState& state) noexcept {
  HWY_DYNAMIC_DISPATCH(DecodeBf16)(q_MK, queries, dim, keys, scale, state);
}

void ClearDecode(const DecodeState& state, size_t queries, size_t dim) noexcept {
  std::fill_n(state.max_M, queries, -std::numeric_limits<float>::infinity());
  std::fill_n(state.sum_M, queries, 0.0f);
  std::fill_n(state.acc_MK, queries * dim, 0.0f);
}

void MergeDecode(const DecodeState& from, size_t queries, size_t dim,
                 const DecodeState& into) noexcept {
  for (size_t m = 0; m < queries; ++m) {
    const float max = std::max(from.max_M[m], into.max_M[m]);
    // Without a maximum the sums are 0 or NaN, which stays.
    const bool none = max == -std::numeric_limits<float>::infinity();
    const float scale_from = none ? 1.0f : std::exp(from.max_M[m] - max);
    const float scale_into = none ? 1.0f : std::exp(into.max_M[m] - max);
    into.max_M[m] = max;
    into.sum_M[m] = into.sum_M[m] * scale_into + from.sum_M[m] * scale_from;
    const float* add_K = from.acc_MK + m * dim;
    float* acc_K = into.acc_MK + m * dim;
    for (size_t c = 0; c < dim; ++c) acc_K[c] = acc_K[c] * scale_into + add_K[c] * scale_from;
  }
}

}  // namespace lwm::kernels
#endif  // HWY_ONCE
