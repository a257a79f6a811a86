#include "lwm/ops/conv/winograd_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>
#include <torch/csrc/autograd/autograd.h>

#include <array>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

struct Case {
  at::Tensor x, weight, bias;
};

Case MakeCase(int64_t images, int64_t in, int64_t out, int64_t height, int64_t width) {
  at::manual_seed(3);
  return {at::randn({images, in, height, width}).contiguous(kChannelsLast),
          at::randn({out, in, 3, 3}), at::randn({out})};
}

at::Tensor Exact(const Case& c) {
  return at::conv2d(c.x.to(at::kDouble), c.weight.to(at::kDouble), c.bias.to(at::kDouble), 1, 1);
}

double WorstRelative(const at::Tensor& actual, const at::Tensor& expected) {
  EXPECT_EQ(actual.sizes(), expected.sizes());
  return ((actual.to(at::kDouble) - expected).abs().max() / expected.abs().max()).item<double>();
}

TEST(WinogradConv2dTest, MatchesTheDefinitionAtOddSizesAndChannels) {
  const std::vector<std::array<int64_t, 5>> problems = {
      {1, 1, 1, 1, 1},     {2, 3, 5, 7, 4},      {1, 17, 19, 1, 9},  {3, 33, 16, 8, 8},
      {2, 64, 48, 33, 21}, {1, 260, 130, 10, 3}, {5, 16, 32, 2, 31}, {1, 3, 2, 120, 118}};
  for (const auto& [images, in, out, height, width] : problems) {
    SCOPED_TRACE(testing::Message()
                 << images << " x " << in << " to " << out << " of " << height << " x " << width);
    const Case c = MakeCase(images, in, out, height, width);
    const WinogradConv2d conv(c.weight, c.bias);
    const at::Tensor exact = Exact(c), y = conv.Run(c.x);
    EXPECT_TRUE(y.is_contiguous(kChannelsLast));
    EXPECT_LT(WorstRelative(y, exact), 2e-6);
    EXPECT_TRUE(conv.Run(c.x.contiguous()).equal(y));
    const at::Tensor sum = at::randn(exact.sizes()).contiguous(kChannelsLast);
    const at::Tensor expected = sum.to(at::kDouble) + exact;
    conv.AddTo(sum, c.x);
    EXPECT_LT(WorstRelative(sum, expected), 2e-6);
  }
}

TEST(WinogradConv2dTest, ResultsDoNotDependOnTheNumberOfThreads) {
  for (const int64_t side : {36, 130}) {  // shared by planes and by runs of tiles
    const Case c = MakeCase(1, 40, 24, side, side + 1);
    const WinogradConv2d conv(c.weight, c.bias);
    const int threads = at::get_num_threads();
    at::set_num_threads(1);
    const at::Tensor one = conv.Run(c.x);
    at::set_num_threads(2);
    EXPECT_TRUE(conv.Run(c.x).equal(one));
    at::set_num_threads(threads);
  }
}

// The result and the gradients of x, weight and bias.
std::vector<at::Tensor> Train(const Case& c, const at::Tensor& dy, bool by_definition) {
  std::vector<at::Tensor> leaves;
  for (const at::Tensor& leaf : {c.x, c.weight, c.bias})
    leaves.push_back(
        leaf.to(by_definition ? at::kDouble : at::kFloat).detach().clone().set_requires_grad(true));
  const at::Tensor y = by_definition ? at::conv2d(leaves[0], leaves[1], leaves[2], 1, 1)
                                     : WinogradTrainedConv2d(leaves[0], leaves[1], leaves[2]);
  std::vector<at::Tensor> all = torch::autograd::grad({y}, leaves, {dy.to(y.scalar_type())});
  all.push_back(y.detach());
  return all;
}

TEST(WinogradTrainedConv2dTest, ResultAndGradientsMatchTheDefinition) {
  const std::vector<std::array<int64_t, 5>> problems = {{1, 1, 1, 1, 1},    {2, 3, 5, 7, 4},
                                                        {1, 17, 19, 1, 9},  {3, 33, 16, 8, 8},
                                                        {5, 16, 32, 2, 31}, {1, 3, 2, 120, 118}};
  for (const auto& [images, in, out, height, width] : problems) {
    SCOPED_TRACE(testing::Message()
                 << images << " x " << in << " to " << out << " of " << height << " x " << width);
    const Case c = MakeCase(images, in, out, height, width);
    const at::Tensor dy = at::randn({images, out, height, width});
    const auto actual = Train(c, dy, false), exact = Train(c, dy, true);
    for (size_t i = 0; i < exact.size(); ++i) EXPECT_LT(WorstRelative(actual[i], exact[i]), 3e-6);
    EXPECT_TRUE(actual[0].is_contiguous(kChannelsLast));
    EXPECT_TRUE(actual[1].is_contiguous(kChannelsLast));
  }
}

TEST(WinogradTrainedConv2dTest, GradientsDoNotDependOnTheNumberOfThreads) {
  const Case c = MakeCase(2, 40, 24, 36, 37);
  const at::Tensor dy = at::randn({2, 24, 36, 37});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const auto one = Train(c, dy, false);
  at::set_num_threads(2);
  const auto two = Train(c, dy, false);
  at::set_num_threads(threads);
  for (size_t i = 0; i < one.size(); ++i) EXPECT_TRUE(one[i].equal(two[i])) << i;
}

TEST(WinogradTrainedConv2dTest, WrongInputsAreTheCallersError) {
  const Case c = MakeCase(1, 4, 6, 5, 5);
  EXPECT_ERROR(WinogradTrainedConv2d(c.x, at::zeros({6, 4, 1, 1}), c.bias), kInvalidArgument);
  EXPECT_ERROR(WinogradTrainedConv2d(at::zeros({1, 5, 5, 5}), c.weight, c.bias), kInvalidArgument);
  EXPECT_ERROR(WinogradTrainedConv2d(at::zeros({0, 4, 5, 5}), c.weight, c.bias), kInvalidArgument);
}

// The four outputs of a tile share products, so a NaN reaches a pixel further than by definition.
TEST(WinogradConv2dTest, NanStaysNearAndInItsImage) {
  for (const int64_t at : {4, 5}) {
    const Case c = MakeCase(2, 8, 4, 12, 12);
    c.x[0][3][at][at] = NAN;
    const at::Tensor bad = WinogradConv2d(c.weight, c.bias).Run(c.x).isnan();
    EXPECT_FALSE(bad[1].any().item<bool>());
    EXPECT_TRUE(bad[0].slice(1, at - 1, at + 2).slice(2, at - 1, at + 2).all().item<bool>());
    EXPECT_TRUE(bad[0].sum().equal(bad[0].slice(1, at - 2, at + 3).slice(2, at - 2, at + 3).sum()));
  }
}

TEST(WinogradConv2dTest, WrongInputsAreTheCallersError) {
  const Case c = MakeCase(1, 4, 6, 5, 5);
  EXPECT_ERROR(WinogradConv2d(at::zeros({6, 4, 1, 1}), c.bias), kInvalidArgument);
  EXPECT_ERROR(WinogradConv2d(c.weight, at::zeros({4})), kInvalidArgument);
  const WinogradConv2d conv(c.weight, c.bias);
  EXPECT_ERROR(conv.Run(at::zeros({1, 5, 5, 5})), kInvalidArgument);
  EXPECT_ERROR(conv.Run(c.x.to(at::kDouble)), kInvalidArgument);
  EXPECT_ERROR(conv.AddTo(at::zeros({1, 6, 5, 5}), c.x), kInvalidArgument);
  EXPECT_ERROR(conv.AddTo(at::zeros({1, 6, 4, 5}).contiguous(kChannelsLast), c.x),
               kInvalidArgument);
  EXPECT_EQ(conv.Run(at::zeros({0, 4, 5, 5})).size(0), 0);
}

}  // namespace
}  // namespace lwm::ops
