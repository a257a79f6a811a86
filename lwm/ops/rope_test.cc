#include "lwm/ops/rope.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

std::vector<double> Frequencies(double theta, int64_t head_dim) {
  std::vector<double> frequency_R;
  for (int64_t r = 0; r < head_dim / 2; ++r)
    frequency_R.push_back(
        std::pow(theta, -2.0 * static_cast<double>(r) / static_cast<double>(head_dim)));
  return frequency_R;
}

// Positions up to the million-token context and beyond, against long double.
TEST(OpsRopeTest, TableIsWithinF32RoundingAtAMillionTokens) {
  const auto frequency_R = Frequencies(5e7, 128);
  std::vector<int64_t> positions = {0, 1, 257, 1000, 30000, 1048575, 1048576, 4194303, 16777217};
  const at::Tensor position_T = at::tensor(positions, at::kLong);
  const RopeTable table = MakeRopeTable(position_T, frequency_R, 1);
  long double worst = 0;
  for (size_t t = 0; t < positions.size(); ++t)
    for (size_t r = 0; r < frequency_R.size(); ++r) {
      const long double angle = static_cast<long double>(positions[t]) * frequency_R[r];
      const auto at = [&](const at::Tensor& x) {
        return x[static_cast<int64_t>(t)][static_cast<int64_t>(r)].item<float>();
      };
      worst = std::max(worst, std::abs(at(table.cos_TR) - std::cos(angle)));
      worst = std::max(worst, std::abs(at(table.sin_TR) - std::sin(angle)));
    }
  EXPECT_LT(static_cast<double>(worst), 4e-8);  // half a unit in the last place of f32 is 3e-8
}

at::Tensor Reference(const at::Tensor& x_THK, const RopeTable& table, bool inverse) {
  const int64_t pairs = table.cos_TR.size(1);
  const at::Tensor cosine = table.cos_TR.to(at::kDouble).unsqueeze(1);
  const at::Tensor sine = table.sin_TR.to(at::kDouble).unsqueeze(1) * (inverse ? -1 : 1);
  const at::Tensor x = x_THK.to(at::kDouble);
  const at::Tensor a = x.narrow(-1, 0, pairs), b = x.narrow(-1, pairs, pairs);
  return at::cat({a * cosine - b * sine, b * cosine + a * sine}, -1);
}

double Worst(const at::Tensor& actual, const at::Tensor& expected) {
  return (actual.to(at::kDouble) - expected).abs().max().item<double>();
}

TEST(OpsRopeTest, RotatesHalvesOfEveryHeadOnAnyStrides) {
  at::manual_seed(1);
  for (const int64_t head_dim : {2, 24, 64, 130})
    for (const bool inverse : {false, true}) {
      const auto table =
          MakeRopeTable(at::arange(11, at::kInt) * 97, Frequencies(1e4, head_dim), 1.1);
      at::Tensor wide = at::randn({11, 3, head_dim + 6});
      at::Tensor x_THK = wide.narrow(2, 3, head_dim);  // rows with gaps
      const at::Tensor expected = Reference(x_THK, table, inverse), before = wide.clone();
      at::Tensor bf16_THK = x_THK.to(at::kBFloat16);
      const at::Tensor expected16 = Reference(bf16_THK, table, inverse);
      ApplyRope(x_THK, table, inverse);
      ApplyRope(bf16_THK, table, inverse);
      EXPECT_LT(Worst(x_THK, expected), 6e-7);
      EXPECT_LT(Worst(bf16_THK, expected16), 0.017);  // half a bf16 unit at |x| < 8
      EXPECT_TRUE(wide.narrow(2, 0, 3).equal(before.narrow(2, 0, 3)));
      EXPECT_TRUE(wide.narrow(2, head_dim + 3, 3).equal(before.narrow(2, head_dim + 3, 3)));
    }
}

TEST(OpsRopeTest, RowsOfABatchUseTheirOwnPositions) {
  at::manual_seed(2);
  const at::Tensor position_BT = at::randint(1000, {3, 50}, at::kInt);
  const RopeTable table = MakeRopeTable(position_BT, Frequencies(1e4, 8), 1);
  // Longer than one thread's share, so that ranges cross rows.
  at::Tensor x_BTHK = at::randn({3, 70, 90, 8}).narrow(1, 5, 50);
  const at::Tensor expected = Reference(x_BTHK.reshape({150, 90, 8}), table, false);
  ApplyRope(x_BTHK, table, false);
  EXPECT_LT(Worst(x_BTHK.reshape({150, 90, 8}), expected), 6e-7);
}

TEST(OpsRopeTest, InverseIsTheTranspose) {
  at::manual_seed(3);
  const RopeTable table = MakeRopeTable(at::arange(9, at::kLong) * 31, Frequencies(1e4, 16), 1.3);
  const at::Tensor x = at::randn({9, 2, 16}), dy = at::randn({9, 2, 16});
  at::Tensor y = x.clone(), dx = dy.clone();
  ApplyRope(y, table, false);
  ApplyRope(dx, table, true);
  EXPECT_NEAR((y * dy).sum().item<double>(), (x * dx).sum().item<double>(), 2e-4);
}

TEST(OpsRopeTest, MismatchedInputsAreTheCallersError) {
  const RopeTable table = MakeRopeTable(at::arange(4, at::kLong), Frequencies(1e4, 8), 1);
  at::Tensor short_THK = at::zeros({3, 1, 8}), odd_THK = at::zeros({4, 1, 6});
  at::Tensor f64_THK = at::zeros({4, 1, 8}).to(at::kDouble);
  at::Tensor strided = at::zeros({4, 8, 1}).transpose(1, 2);
  at::Tensor gaps = at::zeros({4, 1, 16}).slice(2, 0, 16, 2);
  EXPECT_ERROR(ApplyRope(short_THK, table, false), kInvalidArgument);
  EXPECT_ERROR(ApplyRope(odd_THK, table, false), kInvalidArgument);
  EXPECT_ERROR(ApplyRope(f64_THK, table, false), kInvalidArgument);
  EXPECT_ERROR(ApplyRope(gaps, table, false), kInvalidArgument);
  EXPECT_NO_THROW(ApplyRope(strided, table, false));
  EXPECT_ERROR(MakeRopeTable(at::zeros({4}), {1.0}, 1), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
