#include "lwm/ops/gemv.h"

#include <ATen/ATen.h>
#include <ATen/Parallel.h>
#include <gtest/gtest.h>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::ops {
namespace {

// Largest |y - reference| over 2^-24 (2 + sqrt(C) / 2) sum |w x|, the bound of kernels/gemv.h.
double WorstOverBound(int64_t tokens, int64_t rows, int64_t cols, at::ScalarType dtype) {
  const at::Tensor x_TC = at::randn({tokens, cols}).to(dtype);
  const at::Tensor w_RC = at::randn({rows, cols}).to(dtype);
  const at::Tensor want = at::matmul(x_TC.to(at::kDouble), w_RC.to(at::kDouble).t());
  const at::Tensor size = at::matmul(x_TC.to(at::kDouble).abs(), w_RC.to(at::kDouble).abs().t());
  const at::Tensor got = Gemv(x_TC, w_RC, at::kFloat);
  EXPECT_EQ(got.scalar_type(), at::kFloat);
  const double unit = 0x1p-24 * (2 + std::sqrt(static_cast<double>(cols)) / 2);
  return ((got - want).abs() / (size * unit)).max().item<double>();
}

TEST(GemvOpTest, MatchesTheDefinitionAtAnySize) {
  at::manual_seed(1);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const int64_t tokens : {1, 2, 4, 7})
      for (const auto& [rows, cols] : {std::pair{1, 1}, {3, 65}, {64, 576}, {1001, 300}})
        EXPECT_LE(WorstOverBound(tokens, rows, cols, dtype), 1)
            << tokens << " " << rows << " " << cols << " " << dtype;
}

TEST(GemvOpTest, Bf16OutIsTheRoundedSum) {
  const at::Tensor x_TC = at::randn({2, 96}).to(at::kBFloat16);
  const at::Tensor w_RC = at::randn({33, 96}).to(at::kBFloat16);
  EXPECT_TRUE(
      at::equal(Gemv(x_TC, w_RC, at::kBFloat16), Gemv(x_TC, w_RC, at::kFloat).to(at::kBFloat16)));
}

TEST(GemvOpTest, TheNumberOfThreadsDoesNotChangeABit) {
  const at::Tensor x_TC = at::randn({3, 700}), w_RC = at::randn({517, 700});
  const int threads = at::get_num_threads();
  at::set_num_threads(1);
  const at::Tensor one = Gemv(x_TC, w_RC, at::kFloat);
  at::set_num_threads(3);
  const at::Tensor three = Gemv(x_TC, w_RC, at::kFloat);
  at::set_num_threads(threads);
  EXPECT_TRUE(at::equal(one, three));
}

TEST(GemvOpTest, SeveralMatricesGiveWhatEachGivesAlone) {
  for (const at::ScalarType out : {at::kFloat, at::kBFloat16})
    for (const int64_t tokens : {1, 3}) {
      const at::Tensor x_TC = at::randn({tokens, 600}).to(at::kBFloat16);
      std::vector<LinearWeight> w_RC;
      for (const int64_t rows : {70, 1, 0, 333})
        w_RC.push_back(at::randn({rows, 600}).to(at::kBFloat16));
      const auto together = GemvEach(x_TC, w_RC, out);
      for (size_t i = 0; i < w_RC.size(); ++i)
        EXPECT_TRUE(at::equal(together[i], Gemv(x_TC, w_RC[i], at::kFloat).to(out))) << i;
    }
}

TEST(GemvOpTest, RefusesWhatItCannotRead) {
  const at::Tensor x_TC = at::zeros({1, 8}), w_RC = at::zeros({4, 8});
  EXPECT_ERROR(Gemv(x_TC, at::zeros({4, 9}), at::kFloat), kInvalidArgument);
  EXPECT_ERROR(Gemv(x_TC, w_RC.to(at::kBFloat16), at::kFloat), kInvalidArgument);
  EXPECT_ERROR(Gemv(x_TC.to(at::kHalf), w_RC.to(at::kHalf), at::kFloat), kInvalidArgument);
  EXPECT_ERROR(Gemv(x_TC, at::zeros({8, 4}).t(), at::kFloat), kInvalidArgument);
  EXPECT_ERROR(Gemv(x_TC, w_RC, at::kHalf), kInvalidArgument);
}

}  // namespace
}  // namespace lwm::ops
