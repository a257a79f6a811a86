#include "lwm/ops/attention/key_tiles.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cmath>

#include "lwm/base/error.h"
#include "lwm/testing/attention_problem.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

using testing_support::MakeProblem;
using testing_support::Problem;

bool HasOwnKernels() {
  return kernels::BestTileKernel(kernels::TileType::kBF16) != kernels::TileKernel::kOneDnn;
}

AttentionOutput Attend(const Problem& p, const KeyBlock& keys) {
  AttentionCarry carry = MakeAttentionCarry(p.q_BTHK);
  AttentionOutput output;
  AttentionBlockForward(p.queries(), keys, p.scale, carry, {}, &output);
  return output;
}

void ExpectSameBits(const AttentionOutput& got, const AttentionOutput& want) {
  EXPECT_TRUE(at::equal(got.out_BTHK.nan_to_num(9), want.out_BTHK.nan_to_num(9)));
  EXPECT_TRUE(at::equal(got.lse_BHT.nan_to_num(9), want.lse_BHT.nan_to_num(9)));
}

TEST(KeyTilesTest, PackedKeysAloneGiveTheSameBits) {
  if (!HasOwnKernels()) GTEST_SKIP() << "packed keys are of our own kernels";
  for (const int64_t dim : {40, 128}) {
    for (const bool with_nan : {false, true}) {
      Problem p = MakeProblem({2, 700, 1300, 4, 2, dim, {90, 410}, 600}, at::kBFloat16);
      if (with_nan) p.k_BUGK.select(1, 970).fill_(NAN);
      if (with_nan) p.v_BUGK.select(1, 700).fill_(INFINITY);
      const PackedKeys packed = PackKeys(p.queries(), p.keys());
      ASSERT_TRUE(packed.defined());
      EXPECT_EQ(packed.finite_NBG.eq(0).any().item<bool>(), with_nan);
      const AttentionOutput want = Attend(p, p.keys());
      EXPECT_EQ(want.out_BTHK.isfinite().all().item<bool>(), !with_nan);
      EXPECT_TRUE(want.out_BTHK.isfinite().any().item<bool>());
      ExpectSameBits(Attend(p, {{}, {}, p.key_index_BU, packed}), want);
    }
  }
}

TEST(KeyTilesTest, SomeOfTheTilesAreThoseKeys) {
  if (!HasOwnKernels()) GTEST_SKIP() << "packed keys are of our own kernels";
  const Problem p = MakeProblem({1, 300, 1300, 2, 1, 64, {}, 1000}, at::kBFloat16);
  const PackedKeys all = PackKeys(p.queries(), p.keys());
  ASSERT_EQ(all.tile_keys(), 512);
  const PackedKeys last{all.tiles_NBG2UK.narrow(0, 1, 2), all.finite_NBG.narrow(0, 1, 2)};
  const auto rest = [](const at::Tensor& x) { return x.slice(1, 512).contiguous(); };
  ExpectSameBits(Attend(p, {{}, {}, rest(p.key_index_BU), last}),
                 Attend(p, {rest(p.k_BUGK), rest(p.v_BUGK), rest(p.key_index_BU)}));
  EXPECT_ERROR(Attend(p, {{}, {}, p.key_index_BU, last}), kInvalidArgument);
}

TEST(KeyTilesTest, NothingIsPackedForNobody) {
  const Problem p = MakeProblem({1, 8, 64, 2, 1, 16}, at::kBFloat16);
  const auto none = [](const at::Tensor& x) { return x.slice(1, 0, 0).contiguous(); };
  const QueryBlock no_queries{none(p.q_BTHK), none(p.index_BT), none(p.begin_BT)};
  const KeyBlock no_keys{none(p.k_BUGK), none(p.v_BUGK), none(p.key_index_BU)};
  EXPECT_FALSE(PackKeys(no_queries, p.keys()).defined());
  EXPECT_FALSE(PackKeys(p.queries(), no_keys).defined());
}

TEST(KeyTilesTest, OnlyWhatFitsIsPacked) {
  const Problem f32 = MakeProblem({1, 8, 64, 2, 1, 16}, at::kFloat);
  EXPECT_FALSE(PackKeys(f32.queries(), f32.keys()).defined());
  const Problem p = MakeProblem({1, 8, 64, 2, 1, 16}, at::kBFloat16);
  EXPECT_EQ(PackKeys(p.queries(), p.keys()).defined(), HasOwnKernels());
  const at::Tensor k = at::zeros({1, 1, 1, 1024}, at::kBFloat16).expand({1, 40000, 1, 1024});
  const KeyBlock long_keys{k, k, at::zeros({1, 40000}, at::kInt)};
  const at::Tensor q = at::zeros({1, 8, 1, 1024}, at::kBFloat16);
  EXPECT_FALSE(PackKeys({q, p.index_BT, p.begin_BT}, long_keys).defined());
}

}  // namespace
}  // namespace lwm::ops
