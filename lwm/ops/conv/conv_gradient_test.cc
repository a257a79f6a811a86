#include "lwm/ops/conv/conv_gradient.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include <array>
#include <cmath>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

struct Case {
  int64_t images, in, out, height, width, side, stride, padding;
  at::Tensor x_NCHW, dy_NCHW;

  Case(std::array<int64_t, 8> sizes)
      : images(sizes[0]),
        in(sizes[1]),
        out(sizes[2]),
        height(sizes[3]),
        width(sizes[4]),
        side(sizes[5]),
        stride(sizes[6]),
        padding(sizes[7]) {
    at::manual_seed(7);
    const auto size = [&](int64_t from) { return (from + 2 * padding - side) / stride + 1; };
    x_NCHW = at::randn({images, in, height, width}).to(at::kBFloat16).contiguous(kChannelsLast);
    dy_NCHW = at::randn({images, out, size(height), size(width)})
                  .to(at::kBFloat16)
                  .contiguous(kChannelsLast);
  }
  at::Tensor Run() const { return ConvWeightGradient(x_NCHW, dy_NCHW, side, stride, padding); }
  at::Tensor Exact() const {
    const at::Tensor weight = at::zeros({out, in, side, side}, at::kDouble);
    const std::vector<int64_t> strides(2, stride), paddings(2, padding), ones(2, 1), none(2, 0);
    return std::get<1>(at::convolution_backward(
        dy_NCHW.to(at::kDouble), x_NCHW.to(at::kDouble), weight, at::OptionalIntArrayRef(), strides,
        paddings, ones, false, none, 1, std::array<bool, 3>{false, true, false}));
  }
};

class ConvWeightGradientTest : public testing::Test {
 protected:
  void SetUp() override {
    if (!HasConvWeightGradient(16)) GTEST_SKIP() << "this CPU has no AMX";
  }
};

TEST_F(ConvWeightGradientTest, MatchesTheDefinitionAtOddSizesStridesAndChannels) {
  const std::vector<std::array<int64_t, 8>> cases = {
      {1, 1, 16, 1, 1, 3, 1, 1},   {2, 3, 16, 7, 5, 3, 1, 1},  {8, 33, 48, 8, 8, 3, 1, 1},
      {3, 70, 80, 9, 6, 3, 2, 0},  {2, 16, 32, 5, 7, 1, 1, 0}, {5, 32, 16, 16, 16, 3, 1, 1},
      {1, 40, 64, 33, 31, 3, 1, 1}};
  for (const auto& sizes : cases) {
    const Case c(sizes);
    SCOPED_TRACE(testing::Message() << c.x_NCHW.sizes() << " and " << c.dy_NCHW.sizes());
    const at::Tensor dw = c.Run(), exact = c.Exact();
    EXPECT_TRUE(dw.is_contiguous(kChannelsLast));
    // bf16 keeps 8 bits; what cancels leaves the error of sums in f32.
    const at::Tensor bound = exact.abs() * std::ldexp(1.0, -8) + 1e-5 * exact.abs().max();
    EXPECT_TRUE(((dw.to(at::kDouble) - exact).abs() <= bound).all().item<bool>());
  }
}

TEST_F(ConvWeightGradientTest, DoesNotDependOnTheNumberOfThreads) {
  const Case c({4, 64, 48, 16, 17, 3, 1, 1});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = c.Run();
  at::set_num_threads(2);
  EXPECT_TRUE(c.Run().equal(one));
  at::set_num_threads(threads);
}

TEST_F(ConvWeightGradientTest, NanStaysInItsChannelsAndTaps) {
  Case c({1, 40, 32, 6, 6, 3, 1, 1});
  c.x_NCHW[0][35][0][0] = NAN;  // the image's corner, which four taps meet
  const at::Tensor bad = c.Run().isnan();
  EXPECT_EQ(bad.sum().item<int64_t>(), 4 * 32);
  EXPECT_TRUE(bad.select(1, 35).slice(1, 0, 2).slice(2, 0, 2).all().item<bool>());
}

TEST_F(ConvWeightGradientTest, WrongInputsAreTheCallersError) {
  const Case c({1, 4, 16, 6, 6, 3, 1, 1});
  EXPECT_ERROR(ConvWeightGradient(c.x_NCHW, c.dy_NCHW, 3, 1, 0), kInvalidArgument);
  EXPECT_ERROR(ConvWeightGradient(c.x_NCHW.to(at::kFloat), c.dy_NCHW, 3, 1, 1), kInvalidArgument);
  EXPECT_ERROR(ConvWeightGradient(c.x_NCHW, c.dy_NCHW.narrow(1, 0, 15), 3, 1, 1), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
