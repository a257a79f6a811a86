#include "lwm/kernels/attention/softmax_tile.h"

#include <gtest/gtest.h>

#include <bit>
#include <cmath>
#include <limits>
#include <vector>

#include "lwm/base/random.h"
#include "lwm/kernels/aligned_buffer.h"
#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

constexpr int kRows = 5, kKeys = 128, kDim = 32;
constexpr float kInfinity = std::numeric_limits<float>::infinity();

double Load(TileType type, const void* p, int i) {
  if (type == TileType::kF32) return static_cast<const float*>(p)[i];
  return std::bit_cast<float>(static_cast<uint32_t>(static_cast<const uint16_t*>(p)[i]) << 16);
}

struct Tile {
  explicit Tile(float magnitude) {
    Random random(11);
    for (auto* x : {&s_RN, &dp_RN}) {
      *x = MakeAlignedBuffer<float>(kRows * kKeys);
      for (int i = 0; i < kRows * kKeys; ++i) {
        (*x)[i] = magnitude * static_cast<float>(2 * random.Uniform() - 1);
      }
    }
    for (int n = 0; n < kKeys; ++n) key_index_N[n] = n < 100 ? n : -1;
    acc_RK = MakeAlignedBuffer<float>(kRows * kDim);
    p_RN = MakeAlignedBuffer<char>(kRows * kKeys * 4);
    ds_RN = MakeAlignedBuffer<char>(kRows * kKeys * 4);
    for (int i = 0; i < kRows * kDim; ++i) acc_RK[i] = 1;
  }
  TileMask mask() const { return {key_index_N, begin_R, index_R}; }
  bool Seen(int r, int n) const {
    return begin_R[r] <= key_index_N[n] && key_index_N[n] <= index_R[r];
  }
  OnlineSoftmaxTask Online(TileType type, float scale, const TileMask* mask, float* max_R,
                           float* sum_R) {
    return {.type = type,
            .rows = kRows,
            .keys = kKeys,
            .dim = kDim,
            .scale = scale,
            .mask = mask,
            .s_RN = s_RN.get(),
            .state = {.max_R = max_R, .sum_R = sum_R, .acc_RK = acc_RK.get()},
            .p_RN = p_RN.get()};
  }
  SoftmaxGradientTask Gradient(TileType type, float scale, const TileMask* mask, const float* lse_R,
                               const float* delta_R) {
    return {.type = type,
            .rows = kRows,
            .keys = kKeys,
            .scale = scale,
            .mask = mask,
            .s_RN = s_RN.get(),
            .dp_RN = dp_RN.get(),
            .lse_R = lse_R,
            .delta_R = delta_R,
            .p_RN = p_RN.get(),
            .ds_RN = ds_RN.get()};
  }

  AlignedBuffer<float> s_RN, dp_RN, acc_RK;
  AlignedBuffer<char> p_RN, ds_RN;
  int32_t key_index_N[kKeys];
  int32_t begin_R[kRows] = {0, 30, 99, 0, 101};
  int32_t index_R[kRows] = {0, 77, 120, -1, 120};  // the last two see nothing
};

double Bound(TileType type, double magnitude) {
  return type == TileType::kF32 ? 3e-7 + 1e-7 * magnitude : 1.0 / 256;
}

void ExpectOnlineSoftmax(TileType type, float magnitude, bool masked) {
  Tile tile(magnitude);
  const float scale = 0.25f;
  std::vector<double> s(tile.s_RN.get(), tile.s_RN.get() + kRows * kKeys);
  float max_R[kRows] = {-kInfinity, 0.5f, -1, -kInfinity, 2}, sum_R[kRows] = {0, 3, 1, 0, 1};
  const std::vector<float> old_max(max_R, max_R + kRows), old_sum(sum_R, sum_R + kRows);
  const TileMask mask = tile.mask();
  OnlineSoftmaxTile(tile.Online(type, scale, masked ? &mask : nullptr, max_R, sum_R));
  for (int r = 0; r < kRows; ++r) {
    const auto seen = [&](int n) { return !masked || tile.Seen(r, n); };
    double max = old_max[r];
    for (int n = 0; n < kKeys; ++n) {
      if (seen(n)) max = std::max(max, scale * s[r * kKeys + n]);
    }
    const double decay = max == -kInfinity ? 1 : std::exp(old_max[r] - max);
    double sum = old_sum[r] * decay;
    for (int n = 0; n < kKeys; ++n) {
      const double p = seen(n) ? std::exp(scale * s[r * kKeys + n] - max) : 0;
      sum += p;
      EXPECT_NEAR(Load(type, tile.p_RN.get(), r * kKeys + n), p,
                  p * Bound(type, scale * magnitude) + 2e-38);
    }
    EXPECT_EQ(max_R[r], static_cast<float>(max));
    EXPECT_NEAR(sum_R[r], sum, sum * (type == TileType::kF32 ? 1e-6 + 1e-7 * magnitude : 2e-4));
    EXPECT_NEAR(tile.acc_RK[r * kDim + 3], decay, decay * (1e-6 + 1e-7 * magnitude) + 2e-38);
  }
}

TEST(SoftmaxTileTest, OnlineStepMatchesTheDefinitionOnEveryTarget) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    for (const TileType type : {TileType::kF32, TileType::kBF16}) {
      for (const float magnitude : {1e-3f, 4.0f, 400.0f}) {
        ExpectOnlineSoftmax(type, magnitude, false);
        ExpectOnlineSoftmax(type, magnitude, true);
      }
    }
  });
}

void ExpectGradient(TileType type, bool masked) {
  Tile tile(4);
  const float scale = 0.25f;
  const float lse_R[kRows] = {1, 2.5f, -1, -kInfinity, kInfinity};
  const float delta_R[kRows] = {0.5f, -1, 2, 0, 0};
  const TileMask mask = tile.mask();
  SoftmaxGradientTile(tile.Gradient(type, scale, masked ? &mask : nullptr, lse_R, delta_R));
  for (int r = 0; r < kRows; ++r) {
    for (int n = 0; n < kKeys; ++n) {
      const int at = r * kKeys + n;
      const bool seen = (!masked || tile.Seen(r, n)) && std::isfinite(lse_R[r]);
      const double p = seen ? std::exp(scale * double{tile.s_RN[at]} - lse_R[r]) : 0;
      const double ds = scale * p * (double{tile.dp_RN[at]} - delta_R[r]);
      EXPECT_NEAR(Load(type, tile.p_RN.get(), at), p, p * 2 * Bound(type, 4));
      EXPECT_NEAR(Load(type, tile.ds_RN.get(), at), ds, p * 4 * Bound(type, 4));
    }
  }
}

TEST(SoftmaxTileTest, GradientMatchesTheDefinitionOnEveryTarget) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    for (const TileType type : {TileType::kF32, TileType::kBF16}) {
      ExpectGradient(type, false);
      ExpectGradient(type, true);
    }
  });
}

void ExpectNanStaysInItsRow(TileType type, float nan) {
  Tile tile(1);
  tile.s_RN[1 * kKeys + 40] = nan;   // seen
  tile.s_RN[2 * kKeys + 40] = nan;   // hidden
  tile.dp_RN[2 * kKeys + 41] = nan;  // hidden
  float max_R[kRows] = {0, 0, 0, 0, 0}, sum_R[kRows] = {};
  const float zero_R[kRows] = {};
  const TileMask mask = tile.mask();
  SoftmaxGradientTile(tile.Gradient(type, 1, &mask, zero_R, zero_R));
  EXPECT_TRUE(std::isnan(Load(type, tile.p_RN.get(), 1 * kKeys + 40)));
  EXPECT_EQ(Load(type, tile.p_RN.get(), 2 * kKeys + 40), 0);
  EXPECT_EQ(Load(type, tile.ds_RN.get(), 2 * kKeys + 41), 0);
  OnlineSoftmaxTile(tile.Online(type, 1, &mask, max_R, sum_R));
  EXPECT_TRUE(std::isnan(sum_R[1]));
  EXPECT_TRUE(std::isfinite(sum_R[0]) && std::isfinite(sum_R[2]) && std::isfinite(max_R[2]));
}

TEST(SoftmaxTileTest, NanStaysInItsRowAndHiddenNanHasNoEffect) {
  ForEachTarget([](const char* target) {
    SCOPED_TRACE(target);
    for (const TileType type : {TileType::kF32, TileType::kBF16})
      ExpectNanStaysInItsRow(type, std::nanf(""));
    // Memory with all bits set, read as f32. bf16 products never have these bits.
    ExpectNanStaysInItsRow(TileType::kF32, std::bit_cast<float>(0xffffffffu));
  });
}

}  // namespace
}  // namespace lwm::kernels
