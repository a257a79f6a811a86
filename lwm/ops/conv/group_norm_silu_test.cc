#include "lwm/ops/conv/group_norm_silu.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

constexpr double kEps = 1e-6;

at::Tensor Reference(const at::Tensor& x, const at::Tensor& scale, const at::Tensor& bias,
                     int64_t groups) {
  const at::Tensor grouped = x.reshape({x.size(0), groups, -1});
  const at::Tensor centred = grouped - grouped.mean(2, true);
  const at::Tensor normal = centred / (centred.square().mean(2, true) + kEps).sqrt();
  const at::Tensor v =
      normal.view(x.sizes()) * scale.view({1, -1, 1, 1}) + bias.view({1, -1, 1, 1});
  return v * v.sigmoid();
}

struct Case {
  at::Tensor x, scale, bias, dy;
};

Case MakeCase(at::IntArrayRef sizes, at::ScalarType dtype, double mean = 0.5) {
  at::manual_seed(11);
  const int64_t channels = sizes[1];
  return {(at::randn(sizes) + mean).to(dtype).contiguous(at::MemoryFormat::ChannelsLast),
          (1 + 0.3 * at::randn({channels})).to(dtype), (0.3 * at::randn({channels})).to(dtype),
          at::randn(sizes).to(dtype)};
}

// Output and gradients of x, scale and bias.
template <class Op>
std::vector<at::Tensor> RunAll(const Case& c, at::ScalarType dtype, const Op& op) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& input : {c.x, c.scale, c.bias})
    leaves.push_back(input.to(dtype).detach().clone().requires_grad_());
  const at::Tensor y = op(leaves[0], leaves[1], leaves[2]);
  y.backward(c.dy.to(dtype));
  return {y.detach(), leaves[0].grad(), leaves[1].grad(), leaves[2].grad()};
}

void ExpectMatchesFloat64(at::IntArrayRef sizes, int64_t groups, at::ScalarType dtype, double bound,
                          double mean = 0.5) {
  const Case c = MakeCase(sizes, dtype, mean);
  const auto ours = RunAll(c, dtype, [&](const auto& x, const auto& scale, const auto& bias) {
    return GroupNormSilu(x, scale, bias, groups, kEps);
  });
  const auto exact = RunAll(c, at::kDouble, [&](const auto& x, const auto& s, const auto& b) {
    return Reference(x, s, b, groups);
  });
  for (size_t i = 0; i < ours.size(); ++i) {
    EXPECT_EQ(ours[i].scalar_type(), dtype);
    ASSERT_EQ(ours[i].sizes(), exact[i].sizes());
    const double error = (ours[i].to(at::kDouble) - exact[i]).abs().max().item<double>();
    EXPECT_LT(error, bound * exact[i].abs().max().item<double>()) << "result " << i;
  }
}

TEST(OpsGroupNormSiluTest, ForwardAndGradientsMatchFloat64) {
  const std::vector<std::pair<std::vector<int64_t>, int64_t>> problems = {
      {{2, 8, 5, 7}, 4},      {{1, 6, 9, 3}, 6},     {{3, 35, 4, 4}, 5},
      {{1, 128, 17, 23}, 32}, {{2, 3, 200, 150}, 1}, {{1, 7, 1, 1}, 1}};
  for (const auto& [sizes, groups] : problems) {
    SCOPED_TRACE(testing::Message() << at::IntArrayRef(sizes) << " groups " << groups);
    ExpectMatchesFloat64(sizes, groups, at::kFloat, 8e-7);
    ExpectMatchesFloat64(sizes, groups, at::kBFloat16, 0.006);
  }
}

TEST(OpsGroupNormSiluTest, SmallDeviationsFromALargeMeanSurvive) {
  ExpectMatchesFloat64({1, 16, 40, 40}, 16, at::kFloat, 5e-7, 1000);
}

TEST(OpsGroupNormSiluTest, ResultsDoNotDependOnTheNumberOfThreads) {
  const Case c = MakeCase({2, 64, 50, 41}, at::kFloat);
  const auto run = [&](int threads) {
    const int before = at::get_num_threads();
    at::set_num_threads(threads);
    auto results = RunAll(c, at::kFloat, [](const auto& x, const auto& s, const auto& b) {
      return GroupNormSilu(x, s, b, 8, kEps);
    });
    at::set_num_threads(before);
    return results;
  };
  const auto one = run(1), two = run(2);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(two[i])) << i;
}

TEST(OpsGroupNormSiluTest, EveryLayoutGivesTheSame) {
  const Case c = MakeCase({2, 12, 6, 10}, at::kFloat);
  const at::Tensor y = GroupNormSilu(c.x, c.scale, c.bias, 3, kEps);
  EXPECT_TRUE(y.is_contiguous(at::MemoryFormat::ChannelsLast));
  EXPECT_TRUE(GroupNormSilu(c.x.contiguous(), c.scale, c.bias, 3, kEps).equal(y));
  const at::Tensor wide = at::zeros({2, 12, 6, 20});
  wide.slice(3, 0, 20, 2).copy_(c.x);
  EXPECT_TRUE(GroupNormSilu(wide.slice(3, 0, 20, 2), c.scale, c.bias, 3, kEps).equal(y));
}

TEST(OpsGroupNormSiluTest, NanStaysInItsImageAndGroup) {
  const Case c = MakeCase({2, 8, 4, 4}, at::kFloat);
  c.x[1][5][2][3] = NAN;
  const at::Tensor bad = GroupNormSilu(c.x, c.scale, c.bias, 4, kEps).isnan();
  EXPECT_EQ(bad.sum().item<int64_t>(), 2 * 16);
  EXPECT_TRUE(bad[1].slice(0, 4, 6).all().item<bool>());
}

TEST(OpsGroupNormSiluTest, NoImagesAndMixedDtypesAreFine) {
  const at::Tensor ones = at::ones({8}), zeros = at::zeros({8});
  EXPECT_EQ(GroupNormSilu(at::empty({0, 8, 4, 4}), ones, zeros, 2, kEps).size(0), 0);
  const Case c = MakeCase({1, 8, 4, 4}, at::kBFloat16);
  EXPECT_TRUE(GroupNormSilu(c.x, c.scale.to(at::kFloat), c.bias.to(at::kFloat), 2, kEps)
                  .equal(GroupNormSilu(c.x, c.scale, c.bias, 2, kEps)));
}

TEST(OpsGroupNormSiluTest, WrongInputsAreTheCallersError) {
  const at::Tensor x = at::zeros({1, 6, 2, 2}), c = at::ones({6});
  EXPECT_ERROR(GroupNormSilu(x, c, c, 4, kEps), kInvalidArgument);
  EXPECT_ERROR(GroupNormSilu(x, at::ones({5}), c, 2, kEps), kInvalidArgument);
  EXPECT_ERROR(GroupNormSilu(x, c, c, 2, 0), kInvalidArgument);
  EXPECT_ERROR(GroupNormSilu(x.to(at::kHalf), c, c, 2, kEps), kInvalidArgument);
  EXPECT_ERROR(GroupNormSilu(x[0], c, c, 2, kEps), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
