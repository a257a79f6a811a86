#include "lwm/vision/frozen_conv.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"

namespace lwm::vision {
namespace {

constexpr auto kChannelsLast = at::MemoryFormat::ChannelsLast;

struct Problem {
  int64_t in, out, kernel, height, width;
};

struct Case {
  Case(const Problem& problem, at::ScalarType dtype) {
    at::manual_seed(9);
    const auto& [in, out, kernel, height, width] = problem;
    x = at::randn({2, in, height, width}).to(dtype).contiguous(kChannelsLast);
    weight = at::randn({out, in, kernel, kernel});
    bias = at::randn({out});
  }
  at::Tensor x, weight, bias;  // weights in f32
};

at::Tensor Definition(ConvKind kind, const Case& c) {
  at::Tensor x = c.x.to(at::kDouble);
  const at::Tensor weight = c.weight.to(at::kDouble), bias = c.bias.to(at::kDouble);
  if (kind == ConvKind::kHalve)
    return at::conv2d(at::constant_pad_nd(x, {0, 1, 0, 1}), weight, bias, 2);
  if (kind == ConvKind::kDouble) x = x.repeat_interleave(2, 2).repeat_interleave(2, 3);
  return at::conv2d(x, weight, bias, 1, weight.size(2) / 2);
}

void ExpectNear(const at::Tensor& actual, const at::Tensor& expected, double bound) {
  ASSERT_EQ(actual.sizes(), expected.sizes());
  const double error = (actual.to(at::kDouble) - expected).abs().max().item<double>();
  EXPECT_LT(error, bound * expected.abs().max().item<double>());
}

constexpr double Bound(at::ScalarType dtype) { return dtype == at::kFloat ? 2e-6 : 0.006; }

TEST(FrozenConvTest, EveryKindMatchesTheDefinition) {
  const std::pair<ConvKind, Problem> problems[] = {
      {ConvKind::kSame, {3, 40, 3, 9, 6}},    {ConvKind::kSame, {40, 33, 3, 7, 10}},
      {ConvKind::kSame, {40, 20, 1, 5, 3}},   {ConvKind::kHalve, {24, 24, 3, 8, 7}},
      {ConvKind::kHalve, {48, 48, 3, 5, 16}}, {ConvKind::kDouble, {24, 24, 3, 5, 6}},
      {ConvKind::kDouble, {48, 40, 3, 1, 1}}, {ConvKind::kDouble, {5, 7, 3, 4, 9}},
  };
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [kind, problem] : problems) {
      SCOPED_TRACE(testing::Message() << "kind " << static_cast<int>(kind) << " " << dtype << " "
                                      << problem.in << " to " << problem.out);
      const Case c(problem, dtype);
      const at::Tensor y = FrozenConv(kind, c.weight, c.bias, dtype).Run(c.x);
      EXPECT_EQ(y.scalar_type(), dtype);
      ExpectNear(y, Definition(kind, c), Bound(dtype));
    }
}

TEST(FrozenConvTest, AddsToAnotherImage) {
  for (const auto dtype : {at::kFloat, at::kBFloat16})
    for (const Problem& problem :
         {Problem{40, 33, 3, 7, 10}, Problem{8, 16, 3, 4, 5}, Problem{16, 8, 1, 6, 6}}) {
      const Case c(problem, dtype);
      const at::Tensor exact = Definition(ConvKind::kSame, c);
      at::Tensor y = at::randn(exact.sizes()).to(dtype).contiguous(kChannelsLast);
      const at::Tensor expected = y.to(at::kDouble) + exact;
      FrozenConv(ConvKind::kSame, c.weight, c.bias, dtype).AddTo(y, c.x);
      ExpectNear(y, expected, Bound(dtype));
    }
}

}  // namespace
}  // namespace lwm::vision
