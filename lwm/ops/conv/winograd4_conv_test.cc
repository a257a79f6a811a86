#include "lwm/ops/conv/winograd4_conv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <functional>
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
  return {at::randn({images, in, height, width}).to(at::kBFloat16).contiguous(kChannelsLast),
          at::randn({out, in, 3, 3}), at::randn({out})};
}

at::Tensor Exact(const Case& c, bool doubles) {
  at::Tensor x = c.x.to(at::kDouble);
  if (doubles) x = x.repeat_interleave(2, 2).repeat_interleave(2, 3);
  return at::conv2d(x, c.weight.to(at::kDouble), c.bias.to(at::kDouble), 1, 1);
}

// Allows the rounding to bf16, 2^-8 of each number, and the header's accuracy, relative to the
// largest output.
void ExpectNear(const at::Tensor& actual, const at::Tensor& exact) {
  ASSERT_EQ(actual.sizes(), exact.sizes());
  ASSERT_EQ(actual.scalar_type(), at::kBFloat16);
  const at::Tensor error = (actual.to(at::kDouble) - exact).abs() - exact.abs() / 255;
  EXPECT_LT(error.max().item<double>(), 5e-4 * exact.abs().max().item<double>());
}

TEST(Winograd4Conv2dTest, MatchesTheDefinitionAtOddSizesAndChannels) {
  const std::vector<std::array<int64_t, 5>> problems = {
      {1, 1, 1, 1, 1},     {2, 3, 5, 7, 4},      {1, 17, 19, 1, 9},  {3, 33, 16, 8, 8},
      {2, 64, 48, 33, 21}, {1, 260, 130, 10, 3}, {5, 16, 32, 2, 31}, {1, 3, 2, 240, 239}};
  for (const bool doubles : {false, true})
    for (const auto& [images, in, out, height, width] : problems) {
      SCOPED_TRACE(testing::Message() << images << " x " << in << " to " << out << " of " << height
                                      << " x " << width << (doubles ? ", doubled" : ""));
      const Case c = MakeCase(images, in, out, height, width);
      const Winograd4Conv2d conv(c.weight, c.bias, doubles);
      const at::Tensor exact = Exact(c, doubles), y = conv.Run(c.x);
      EXPECT_TRUE(y.is_contiguous(kChannelsLast));
      ExpectNear(y, exact);
      EXPECT_TRUE(conv.Run(c.x.contiguous()).equal(y));
      const at::Tensor sum = at::randn(exact.sizes()).to(at::kBFloat16).contiguous(kChannelsLast);
      const at::Tensor expected = sum.to(at::kDouble) + exact;
      conv.AddTo(sum, c.x);
      ExpectNear(sum, expected);
    }
}

TEST(Winograd4Conv2dTest, WeightsMayBeOfAnyFloatType) {
  const Case c = MakeCase(1, 40, 33, 9, 8);
  const at::Tensor weight = c.weight.to(at::kBFloat16), bias = c.bias.to(at::kBFloat16);
  const at::Tensor y = Winograd4Conv2d(weight, bias, false).Run(c.x);
  EXPECT_TRUE(
      Winograd4Conv2d(weight.to(at::kDouble), bias.to(at::kFloat), false).Run(c.x).equal(y));
}

TEST(Winograd4Conv2dTest, ResultsDoNotDependOnTheNumberOfThreadsOrImagesBeside) {
  const int threads = at::get_num_threads();
  for (const bool doubles : {false, true})
    for (const int64_t side : {36, 150}) {  // shared by panels and by runs of tiles
      const Case c = MakeCase(2, 40, 72, side, side + 1);
      const Winograd4Conv2d conv(c.weight, c.bias, doubles);
      at::set_num_threads(1);
      const at::Tensor one = conv.Run(c.x);
      at::set_num_threads(2);
      EXPECT_TRUE(conv.Run(c.x).equal(one));
      EXPECT_TRUE(conv.Run(c.x.slice(0, 1)).equal(one.slice(0, 1)));
    }
  at::set_num_threads(threads);
}

TEST(Winograd4Conv2dTest, NanStaysInTheTilesThatItTouches) {
  for (const int64_t at : {4, 5}) {
    const Case c = MakeCase(2, 8, 4, 16, 16);
    c.x[0][3][at][at] = NAN;
    const at::Tensor bad = Winograd4Conv2d(c.weight, c.bias, false).Run(c.x).isnan();
    const int64_t first = at == 4 ? 0 : 4;  // 4 is a neighbour of row 3, in the tile before
    EXPECT_FALSE(bad[1].any().item<bool>());
    EXPECT_TRUE(bad[0].slice(1, at - 1, at + 2).slice(2, at - 1, at + 2).all().item<bool>());
    EXPECT_TRUE(bad[0].sum().equal(bad[0].slice(1, first, 8).slice(2, first, 8).sum()));
  }
}

TEST(Winograd4Conv2dTest, WrongInputsAreTheCallersError) {
  const Case c = MakeCase(1, 4, 6, 5, 5);
  const Winograd4Conv2d conv(c.weight, c.bias, false);
  const auto y = [](int64_t height) {
    return at::zeros({1, 6, height, 5}, at::kBFloat16).contiguous(kChannelsLast);
  };
  const std::function<void()> wrong[] = {
      [&] {
        Winograd4Conv2d(at::zeros({6, 4, 1, 1}), c.bias, false);
      },
      [&] { Winograd4Conv2d(c.weight.to(at::kInt), c.bias, false); },
      [&] { Winograd4Conv2d(c.weight, at::zeros({4}), false); },
      [&] {
        conv.Run(at::zeros({1, 5, 5, 5}, at::kBFloat16));
      },
      [&] { conv.Run(c.x.to(at::kFloat)); },
      [&] { conv.AddTo(y(5).contiguous(), c.x); },
      [&] { conv.AddTo(y(4), c.x); },
      [&] { Winograd4Conv2d(c.weight, c.bias, true).AddTo(y(5), c.x); },
  };
  for (const auto& run : wrong)
    testing_support::ExpectError(run, ErrorCode::kInvalidArgument, {"Winograd4Conv2d: want"});
  EXPECT_EQ(conv.Run(at::zeros({0, 4, 5, 5}, at::kBFloat16)).size(0), 0);
}

}  // namespace
}  // namespace lwm::ops
