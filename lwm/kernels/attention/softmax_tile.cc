#include "lwm/kernels/attention/softmax_tile.h"

#include <cmath>
#include <limits>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/attention/softmax_tile.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

using D = hn::ScalableTag<float>;
using V = hn::Vec<D>;
constexpr float kLog2E = 1.44269504f;
constexpr float kMinusInfinity = -std::numeric_limits<float>::infinity();

// 2^x for x <= 127; 0 below 2^-126; NaN of any payload stays NaN. The polynomials are minimax in
// relative error on [-1/2, 1/2]: 1.9e-9 with six terms, 7.5e-5 with three, below what bf16 keeps.
template <TileType type>
HWY_INLINE V Exp2(D d, V x) {
  const hn::RebindToSigned<D> di;
  // Adding 1.5 * 2^23 + 127 leaves round(x), biased as an exponent, in the low bits.
  const V magic = hn::Set(d, 12582912.0f + 127.0f);
  const V shifted = hn::Add(x, magic);
  const V f = hn::Sub(x, hn::Sub(shifted, magic));
  V y;
  if constexpr (type == TileType::kF32) {
    y = hn::MulAdd(hn::Set(d, 0.0001534581178f), f, hn::Set(d, 0.001339993122f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.009618488958f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.05550328777f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.2402264689f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.6931472057f));
    y = hn::MulAdd(y, f, hn::Set(d, 1.0f));
  } else {
    y = hn::MulAdd(hn::Set(d, 0.05517166802f), f, hn::Set(d, 0.2426111221f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.6932609857f));
    y = hn::MulAdd(y, f, hn::Set(d, 0.9999280735f));
  }
  const V power = hn::BitCast(d, hn::ShiftLeft<23>(hn::BitCast(di, shifted)));
  // The comparison is false for NaN.
  return hn::IfThenZeroElse(hn::Lt(x, hn::Set(d, -126.0f)), hn::Mul(y, power));
}

// Two vectors of one row, stored as `type`; bf16 rounds to nearest, ties away from zero.
template <TileType type>
HWY_INLINE void StorePair(D d, V low, V high, void* to, int at) {
  if constexpr (type == TileType::kF32) {
    float* out = static_cast<float*>(to) + at;
    hn::Store(low, d, out);
    hn::Store(high, d, out + hn::Lanes(d));
  } else {
    const hn::RebindToUnsigned<D> du;
    const auto half = hn::Set(du, 0x8000u);
    const auto a = hn::Add(hn::BitCast(du, low), half);
    const auto b = hn::Add(hn::BitCast(du, high), half);
    uint16_t* out = static_cast<uint16_t*>(to) + at;
#if HWY_TARGET == HWY_SCALAR
    out[0] = static_cast<uint16_t>(hn::GetLane(a) >> 16);
    out[1] = static_cast<uint16_t>(hn::GetLane(b) >> 16);
#else
    const hn::Repartition<uint16_t, D> d16;
    hn::Store(hn::ConcatOdd(d16, hn::BitCast(d16, b), hn::BitCast(d16, a)), d16, out);
#endif
  }
}

// Key n is seen when begin <= index[n] <= the query's index.
HWY_INLINE hn::Mask<D> Seen(D d, const TileMask& mask, int row, int key) {
  const hn::RebindToSigned<D> di;
  const auto index = hn::LoadU(di, mask.key_index_N + key);
  const auto before = hn::Lt(index, hn::Set(di, mask.begin_R[row]));
  const auto later = hn::Gt(index, hn::Set(di, mask.index_R[row]));
  return hn::RebindMask(d, hn::Not(hn::Or(before, later)));
}

// Scores become -inf, so that neither the maximum nor the sum needs the mask again.
void MaskRow(D d, const TileMask& mask, int row, int keys, float* s_N) {
  const V hidden = hn::Set(d, kMinusInfinity);
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int n = 0; n < keys; n += lanes) {
    hn::Store(hn::IfThenElse(Seen(d, mask, row, n), hn::Load(d, s_N + n), hidden), d, s_N + n);
  }
}

// Four maxima at a time hide the latency of the instruction; rows have at least 64 keys. Max may
// drop a NaN: ExpRow brings it back into the sum.
float RowMax(D d, const float* s_N, int keys) {
  const int lanes = static_cast<int>(hn::Lanes(d));
  V m0 = hn::Load(d, s_N), m1 = hn::Load(d, s_N + lanes);
  V m2 = m0, m3 = m1;
  for (int n = 0; n < keys; n += 4 * lanes) {
    m0 = hn::Max(m0, hn::Load(d, s_N + n));
    m1 = hn::Max(m1, hn::Load(d, s_N + n + lanes));
    m2 = hn::Max(m2, hn::Load(d, s_N + n + 2 * lanes));
    m3 = hn::Max(m3, hn::Load(d, s_N + n + 3 * lanes));
  }
  return hn::GetLane(hn::MaxOfLanes(d, hn::Max(hn::Max(m0, m1), hn::Max(m2, m3))));
}

// p = 2^(s * factor - shift); returns the sum of p before it is rounded.
template <TileType type>
float ExpRow(D d, const float* s_N, int keys, float factor, float shift, void* p_N) {
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V c = hn::Set(d, factor), b = hn::Set(d, shift);
  V sum0 = hn::Zero(d), sum1 = hn::Zero(d);
  for (int n = 0; n < keys; n += 2 * lanes) {
    const V p0 = Exp2<type>(d, hn::MulSub(hn::Load(d, s_N + n), c, b));
    const V p1 = Exp2<type>(d, hn::MulSub(hn::Load(d, s_N + n + lanes), c, b));
    sum0 = hn::Add(sum0, p0);
    sum1 = hn::Add(sum1, p1);
    StorePair<type>(d, p0, p1, p_N, n);
  }
  return hn::GetLane(hn::SumOfLanes(d, hn::Add(sum0, sum1)));
}

void ScaleRow(D d, float factor, int dim, float* acc_K) {
  const int lanes = static_cast<int>(hn::Lanes(d));
  const V f = hn::Set(d, factor);
  for (int k = 0; k < dim; k += lanes) hn::Store(hn::Mul(f, hn::Load(d, acc_K + k)), d, acc_K + k);
}

// Row by row: a row of scores stays in L1 for the maximum, the exponentials and the sum. The
// accumulator is rescaled only when the maximum grows, mostly in the first tiles.
template <TileType type>
void OnlineSoftmax(const OnlineSoftmaxTask& task) {
  const D d;
  const int keys = task.keys, dim = task.dim;
  const auto [max_R, sum_R, acc_RK] = task.state;
  const float factor = task.scale * kLog2E;
  for (int r = 0; r < task.rows; ++r) {
    const ptrdiff_t at = static_cast<ptrdiff_t>(r) * keys;
    float* s_N = task.s_RN + at;
    char* p_N = static_cast<char*>(task.p_RN) + at * BytesPerElement(type);
    if (task.mask) MaskRow(d, *task.mask, r, keys, s_N);
    const float tile_max = RowMax(d, s_N, keys) * task.scale;
    const float old_max = max_R[r];
    const float new_max = tile_max > old_max ? tile_max : old_max;
    if (new_max > old_max) {
      // exp2 of the difference of the rounded shifts, as ExpRow used them: the result then does not
      // depend on where tiles begin.
      const float decay = static_cast<float>(
          std::exp2(static_cast<double>(old_max * kLog2E) - static_cast<double>(new_max * kLog2E)));
      ScaleRow(d, decay, dim, acc_RK + static_cast<ptrdiff_t>(r) * dim);
      sum_R[r] *= decay;
      max_R[r] = new_max;
    }
    // A row that has seen nothing: -inf - -inf would be NaN, 2^-inf is 0.
    const float shift = new_max == kMinusInfinity ? 0.0f : new_max * kLog2E;
    sum_R[r] += ExpRow<type>(d, s_N, keys, factor, shift, p_N);
  }
}

// A query that saw nothing: 2^(s - -inf) would be 2^inf.
template <TileType type>
void ZeroRow(D d, int keys, void* p_N) {
  const int lanes = static_cast<int>(hn::Lanes(d));
  for (int n = 0; n < keys; n += 2 * lanes) StorePair<type>(d, hn::Zero(d), hn::Zero(d), p_N, n);
}

template <TileType type>
void GradientRow(D d, const SoftmaxGradientTask& task, int row) {
  const int keys = task.keys, lanes = static_cast<int>(hn::Lanes(d));
  const ptrdiff_t start = static_cast<ptrdiff_t>(row) * keys;
  const ptrdiff_t bytes = start * static_cast<ptrdiff_t>(BytesPerElement(type));
  const float *s_N = task.s_RN + start, *dp_N = task.dp_RN + start;
  void* p_N = static_cast<char*>(task.p_RN) + bytes;
  void* ds_N = static_cast<char*>(task.ds_RN) + bytes;
  if (task.lse_R[row] == kMinusInfinity) {
    ZeroRow<type>(d, keys, p_N);
    ZeroRow<type>(d, keys, ds_N);
    return;
  }
  const TileMask* mask = task.mask;
  const V c = hn::Set(d, task.scale * kLog2E), b = hn::Set(d, task.lse_R[row] * kLog2E);
  const V scale_v = hn::Set(d, task.scale), delta_v = hn::Set(d, task.delta_R[row]);
  for (int n = 0; n < keys; n += 2 * lanes) {
    V p[2], ds[2];
    for (int i = 0; i < 2; ++i) {
      const int at = n + i * lanes;
      p[i] = Exp2<type>(d, hn::MulSub(hn::Load(d, s_N + at), c, b));
      ds[i] = hn::Mul(hn::Mul(p[i], scale_v), hn::Sub(hn::Load(d, dp_N + at), delta_v));
      // Selected, not multiplied by 0: lse does not cover hidden scores, so their p may be Inf or
      // NaN.
      if (mask) {
        const auto seen = Seen(d, *mask, row, at);
        p[i] = hn::IfThenElseZero(seen, p[i]);
        ds[i] = hn::IfThenElseZero(seen, ds[i]);
      }
    }
    StorePair<type>(d, p[0], p[1], p_N, n);
    StorePair<type>(d, ds[0], ds[1], ds_N, n);
  }
}

template <TileType type>
void SoftmaxGradient(const SoftmaxGradientTask& task) {
  for (int r = 0; r < task.rows; ++r) GradientRow<type>(D(), task, r);
}

}  // namespace

void OnlineSoftmaxAnyType(const OnlineSoftmaxTask& task) {
  const bool f32 = task.type == TileType::kF32;
  (f32 ? OnlineSoftmax<TileType::kF32> : OnlineSoftmax<TileType::kBF16>)(task);
}

void SoftmaxGradientAnyType(const SoftmaxGradientTask& task) {
  const bool f32 = task.type == TileType::kF32;
  (f32 ? SoftmaxGradient<TileType::kF32> : SoftmaxGradient<TileType::kBF16>)(task);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(OnlineSoftmaxAnyType);
HWY_EXPORT(SoftmaxGradientAnyType);

void OnlineSoftmaxTile(const OnlineSoftmaxTask& task) noexcept {
  HWY_DYNAMIC_DISPATCH(OnlineSoftmaxAnyType)(task);
}

void SoftmaxGradientTile(const SoftmaxGradientTask& task) noexcept {
  HWY_DYNAMIC_DISPATCH(SoftmaxGradientAnyType)(task);
}

}  // namespace lwm::kernels
#endif  // HWY_ONCE
