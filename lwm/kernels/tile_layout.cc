#include "lwm/kernels/tile_layout.h"

#include <cstring>

#undef HWY_TARGET_INCLUDE
#define HWY_TARGET_INCLUDE "lwm/kernels/tile_layout.cc"
#include <hwy/foreach_target.h>
#include <hwy/highway.h>

HWY_BEFORE_NAMESPACE();
namespace lwm::kernels::HWY_NAMESPACE {
namespace {
namespace hn = hwy::HWY_NAMESPACE;

// An f32 or bf16 number is finite when its exponent bits are not all ones.
template <typename Bits>
bool AllFinite(const Bits* x, int count) {
  constexpr Bits kExponent = sizeof(Bits) == 4 ? static_cast<Bits>(0x7f800000u) : Bits{0x7f80};
  const hn::ScalableTag<Bits> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto exponent = hn::Set(d, kExponent);
  auto special = hn::Zero(d);
  int i = 0;
  for (; i + lanes <= count; i += lanes) {
    const auto is_special = hn::Eq(hn::And(hn::LoadU(d, x + i), exponent), exponent);
    special = hn::Or(special, hn::VecFromMask(d, is_special));
  }
  bool finite = hn::AllTrue(d, hn::Eq(special, hn::Zero(d)));
  for (; i < count; ++i) finite = finite && (x[i] & kExponent) != kExponent;
  return finite;
}

// Numbers of a row that was just copied are checked while they are in L1.
template <typename Bits>
bool Gather(const void* const* rows_R, int rows, int dim, int padded_dim, Bits* out_RK) {
  bool finite = true;
  for (int r = 0; r < rows; ++r) {
    Bits* out_K = out_RK + static_cast<ptrdiff_t>(r) * padded_dim;
    constexpr int kAhead = 8;  // rows lie apart, where the hardware prefetcher does not find them
    if (r + kAhead < rows && rows_R[r + kAhead]) {
      const Bits* ahead = static_cast<const Bits*>(rows_R[r + kAhead]);
      for (int c = 0; c < dim; c += static_cast<int>(64 / sizeof(Bits)))
        __builtin_prefetch(ahead + c);
    }
    const int copied = rows_R[r] ? dim : 0;
    if (copied) std::memcpy(out_K, rows_R[r], sizeof(Bits) * static_cast<size_t>(copied));
    std::memset(out_K + copied, 0, sizeof(Bits) * static_cast<size_t>(padded_dim - copied));
    finite = AllFinite(out_K, copied) && finite;
  }
  return finite;
}

#if HWY_TARGET == HWY_SCALAR
template <typename Bits>
void Transpose(int rows, int cols, const Bits* x_RC, Bits* y_CR) {
  for (int c = 0; c < cols; ++c) {
    for (int r = 0; r < rows; ++r) {
      y_CR[static_cast<ptrdiff_t>(c) * rows + r] = x_RC[static_cast<ptrdiff_t>(r) * cols + c];
    }
  }
}
#else
// Square blocks of one 128-bit register per row: 4 x 4 of 32 bits, 8 x 8 of 16 bits.
template <typename Bits>
void TransposeBlock(const Bits* x, ptrdiff_t x_stride, Bits* y, ptrdiff_t y_stride) {
  constexpr int kSide = 16 / sizeof(Bits);
  const hn::Full128<Bits> d;
  hn::Vec<decltype(d)> a[kSide], b[kSide];
  for (int r = 0; r < kSide; ++r) a[r] = hn::LoadU(d, x + r * x_stride);
  // Each round interleaves rows i and i + side / 2: log2(side) rounds rotate the index bits of row
  // and column into each other's place.
  for (int round = 1; round < kSide; round *= 2) {
    for (int i = 0; i < kSide / 2; ++i) {
      b[2 * i] = hn::InterleaveLower(d, a[i], a[i + kSide / 2]);
      b[2 * i + 1] = hn::InterleaveUpper(d, a[i], a[i + kSide / 2]);
    }
    for (int r = 0; r < kSide; ++r) a[r] = b[r];
  }
  for (int r = 0; r < kSide; ++r) hn::StoreU(a[r], d, y + r * y_stride);
}

template <typename Bits>
void Transpose(int rows, int cols, const Bits* x_RC, Bits* y_CR) {
  constexpr int kSide = 16 / sizeof(Bits);
  for (int c = 0; c < cols; c += kSide) {
    for (int r = 0; r < rows; r += kSide) {
      TransposeBlock(x_RC + static_cast<ptrdiff_t>(r) * cols + c, cols,
                     y_CR + static_cast<ptrdiff_t>(c) * rows + r, rows);
    }
  }
}
#endif

}  // namespace

bool GatherAnyType(TileType type, const void* const* rows_R, int rows, int dim, int padded_dim,
                   void* out_RK) {
  return type == TileType::kF32
             ? Gather(rows_R, rows, dim, padded_dim, static_cast<uint32_t*>(out_RK))
             : Gather(rows_R, rows, dim, padded_dim, static_cast<uint16_t*>(out_RK));
}

void TransposeAnyType(TileType type, int rows, int cols, const void* x_RC, void* y_CR) {
  if (type == TileType::kF32) {
    Transpose(rows, cols, static_cast<const uint32_t*>(x_RC), static_cast<uint32_t*>(y_CR));
  } else {
    Transpose(rows, cols, static_cast<const uint16_t*>(x_RC), static_cast<uint16_t*>(y_CR));
  }
}

void AddRowAnyTail(const float* from_K, int dim, float* to_K) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  int k = 0;
  for (; k + lanes <= dim; k += lanes) {
    hn::StoreU(hn::Add(hn::LoadU(d, to_K + k), hn::LoadU(d, from_K + k)), d, to_K + k);
  }
  for (; k < dim; ++k) to_K[k] += from_K[k];
}

namespace {

// Ties away from zero. NaN is left alone: the carry could run through its mantissa into the sign.
// It is quiet after the multiplication, so the upper half alone is still NaN.
inline uint16_t RoundToBf16(float x) {
  uint32_t bits;
  std::memcpy(&bits, &x, sizeof bits);
  const bool special = (bits & 0x7f800000u) == 0x7f800000u;
  return static_cast<uint16_t>((bits + (special ? 0 : 0x8000u)) >> 16);
}
inline float FromBf16(uint16_t x) {
  const uint32_t bits = static_cast<uint32_t>(x) << 16;
  float value;
  std::memcpy(&value, &bits, sizeof value);
  return value;
}

void ScaleTo(const float* x_K, int dim, float factor, float* out_K) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  int k = 0;
  for (; k + lanes <= dim; k += lanes) hn::StoreU(hn::Mul(f, hn::LoadU(d, x_K + k)), d, out_K + k);
  for (; k < dim; ++k) out_K[k] = factor * x_K[k];
}

// As RoundToBf16, by lanes: special numbers get no carry.
void ScaleTo(const float* x_K, int dim, float factor, uint16_t* out_K) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto f = hn::Set(d, factor);
  const auto half = hn::Set(du, 0x8000u);
  const auto exponent = hn::Set(du, 0x7f800000u);
  int k = 0;
  for (; k + lanes <= dim; k += lanes) {
    const auto bits = hn::BitCast(du, hn::Mul(f, hn::LoadU(d, x_K + k)));
    const auto special = hn::Eq(hn::And(bits, exponent), exponent);
    const auto rounded = hn::Add(bits, hn::IfThenZeroElse(special, half));
    hn::StoreU(hn::TruncateTo(d16, hn::ShiftRight<16>(rounded)), d16, out_K + k);
  }
  for (; k < dim; ++k) out_K[k] = RoundToBf16(factor * x_K[k]);
}

// One vector of sums: head dims are short, and the calls are few, one per query.
float Dot(const float* x_K, const float* y_K, int dim) {
  const hn::ScalableTag<float> d;
  const int lanes = static_cast<int>(hn::Lanes(d));
  auto sum = hn::Zero(d);
  int k = 0;
  for (; k + lanes <= dim; k += lanes) {
    sum = hn::MulAdd(hn::LoadU(d, x_K + k), hn::LoadU(d, y_K + k), sum);
  }
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; k < dim; ++k) total += x_K[k] * y_K[k];
  return total;
}

float Dot(const uint16_t* x_K, const uint16_t* y_K, int dim) {
  const hn::ScalableTag<float> d;
  const hn::RebindToUnsigned<decltype(d)> du;
  const hn::Rebind<uint16_t, decltype(d)> d16;
  const int lanes = static_cast<int>(hn::Lanes(d));
  const auto widen = [&](const uint16_t* from) {
    return hn::BitCast(d, hn::ShiftLeft<16>(hn::PromoteTo(du, hn::LoadU(d16, from))));
  };
  auto sum = hn::Zero(d);
  int k = 0;
  for (; k + lanes <= dim; k += lanes) sum = hn::MulAdd(widen(x_K + k), widen(y_K + k), sum);
  float total = hn::GetLane(hn::SumOfLanes(d, sum));
  for (; k < dim; ++k) total += FromBf16(x_K[k]) * FromBf16(y_K[k]);
  return total;
}

}  // namespace

void ScaleToAnyType(TileType type, const float* x_K, int dim, float factor, void* out_K) {
  if (type == TileType::kF32) {
    ScaleTo(x_K, dim, factor, static_cast<float*>(out_K));
  } else {
    ScaleTo(x_K, dim, factor, static_cast<uint16_t*>(out_K));
  }
}

float DotAnyType(TileType type, const void* x_K, const void* y_K, int dim) {
  return type == TileType::kF32
             ? Dot(static_cast<const float*>(x_K), static_cast<const float*>(y_K), dim)
             : Dot(static_cast<const uint16_t*>(x_K), static_cast<const uint16_t*>(y_K), dim);
}

}  // namespace lwm::kernels::HWY_NAMESPACE
HWY_AFTER_NAMESPACE();

#if HWY_ONCE
namespace lwm::kernels {
HWY_EXPORT(GatherAnyType);
HWY_EXPORT(TransposeAnyType);
HWY_EXPORT(AddRowAnyTail);
HWY_EXPORT(ScaleToAnyType);
HWY_EXPORT(DotAnyType);

bool GatherRows(TileType type, const void* const* rows_R, int rows, int dim, int padded_dim,
                void* out_RK) noexcept {
  return HWY_DYNAMIC_DISPATCH(GatherAnyType)(type, rows_R, rows, dim, padded_dim, out_RK);
}

void TransposeTile(TileType type, int rows, int cols, const void* x_RC, void* y_CR) noexcept {
  HWY_DYNAMIC_DISPATCH(TransposeAnyType)(type, rows, cols, x_RC, y_CR);
}

void AddRow(const float* from_K, int dim, float* to_K) noexcept {
  HWY_DYNAMIC_DISPATCH(AddRowAnyTail)(from_K, dim, to_K);
}

// For writing (1), into the second-level cache (2): rows that are added to later in the call.
void FetchRow(const void* data, size_t bytes) noexcept {
  for (size_t at = 0; at < bytes; at += 64) {
    __builtin_prefetch(static_cast<const char*>(data) + at, 1, 2);
  }
}

void ScaleRowTo(TileType type, const float* x_K, int dim, float factor, void* out_K) noexcept {
  HWY_DYNAMIC_DISPATCH(ScaleToAnyType)(type, x_K, dim, factor, out_K);
}

float DotRows(TileType type, const void* x_K, const void* y_K, int dim) noexcept {
  return HWY_DYNAMIC_DISPATCH(DotAnyType)(type, x_K, y_K, dim);
}

}  // namespace lwm::kernels
#endif  // HWY_ONCE
