#include "lwm/ops/product.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <array>

#include "lwm/base/error.h"

namespace lwm::ops {
namespace {

at::Tensor Matrix(int64_t rows, int64_t cols, at::ScalarType dtype) {
  return at::randn({rows, cols}).to(dtype);
}

// The matrix itself, and as a part of a larger one whose columns are contiguous.
std::array<at::Tensor, 2> Layouts(const at::Tensor& x) {
  const at::Tensor larger = at::zeros({x.size(1) + 3, x.size(0) + 5}, x.options());
  at::Tensor part = larger.narrow(0, 2, x.size(1)).narrow(1, 1, x.size(0)).t();
  return {x, part.copy_(x)};
}

at::Tensor Exact(const at::Tensor& a, const at::Tensor& b) {
  return a.to(at::kDouble).mm(b.to(at::kDouble));
}

double WorstRelative(const at::Tensor& actual, const at::Tensor& exact) {
  EXPECT_EQ(actual.sizes(), exact.sizes());
  return ((actual.to(at::kDouble) - exact).abs().max() / exact.abs().max()).item<double>();
}

// One rounding to bf16 of each number.
void ExpectRoundedOnce(const at::Tensor& actual, const at::Tensor& exact) {
  EXPECT_EQ(actual.scalar_type(), at::kBFloat16);
  EXPECT_EQ(actual.sizes(), exact.sizes());
  const at::Tensor apart = (actual.to(at::kDouble) - exact).abs();
  EXPECT_TRUE((apart <= exact.abs() / 256 + exact.abs().max() * 1e-6).all().item<bool>());
}

// Blocks are 2048 rows, 512 columns and 512 deep.
constexpr std::array<std::array<int64_t, 3>, 5> kShapes = {
    {{1, 1, 1}, {3, 70, 5}, {37, 513, 520}, {2050, 9, 3}, {1, 1100, 1025}}};

TEST(ProductTest, AllFormsMatchFloat64InEveryLayout) {
  at::manual_seed(5);
  for (const at::ScalarType dtype : {at::kFloat, at::kBFloat16})
    for (const auto& [m, k, n] : kShapes) {
      SCOPED_TRACE(testing::Message() << dtype << " " << m << " x " << k << " x " << n);
      const at::Tensor a_MK = Matrix(m, k, dtype), b_KN = Matrix(k, n, dtype);
      const at::Tensor exact = Exact(a_MK, b_KN);
      const double bound = dtype == at::kFloat ? 3e-6 : 4e-3;
      for (const at::Tensor& a : Layouts(a_MK))
        for (const at::Tensor& b : Layouts(b_KN)) {
          EXPECT_LT(WorstRelative(Product(a, b), exact), bound);
          EXPECT_LT(WorstRelative(ProductTransposed(a, b.t()), exact), bound);
          at::Tensor out = at::full({m, n}, 7, a.options());
          ProductInto(out, a, b);
          EXPECT_LT(WorstRelative(out, exact), bound);
          at::Tensor sum = at::ones({m, n}, a.options());
          AddProduct(sum, a, b);
          EXPECT_LT(WorstRelative(sum, exact + 1), bound);
        }
    }
}

TEST(ProductTest, WidenedSumsAreRoundedOnceOrNotAtAll) {
  at::manual_seed(6);
  for (const auto& [m, k, n] : kShapes) {
    SCOPED_TRACE(testing::Message() << m << " x " << k << " x " << n);
    const at::Tensor a_MK = Matrix(m, k, at::kBFloat16), b_KN = Matrix(k, n, at::kBFloat16);
    const at::Tensor exact = Exact(a_MK, b_KN) + 1;
    for (const at::Tensor& a : Layouts(a_MK))
      for (const at::Tensor& b : Layouts(b_KN)) {
        at::Tensor sum = at::ones({m, n}), rounded = sum.to(at::kBFloat16);
        AddWidenedProduct(sum, a, b);
        EXPECT_LT(WorstRelative(sum, exact), 1e-6);
        AddWidenedProduct(rounded, a, b);
        ExpectRoundedOnce(rounded, exact);
      }
  }
}

TEST(ProductTest, PartOfALargerResultLeavesTheRestAlone) {
  at::manual_seed(7);
  const at::Tensor a = Matrix(6, 40, at::kBFloat16), b = Matrix(40, 20, at::kBFloat16);
  const at::Tensor all = at::full({10, 20}, 3, a.options());
  at::Tensor part = all.narrow(0, 2, 6);
  ProductInto(part, a, b);
  ExpectRoundedOnce(part, Exact(a, b));
  EXPECT_TRUE(all.narrow(0, 0, 2).eq(3).all().item<bool>());
  EXPECT_TRUE(all.narrow(0, 8, 2).eq(3).all().item<bool>());
}

TEST(ProductTest, NothingToSumIsZeroAndNothingToComputeIsEmpty) {
  const auto bf16 = at::TensorOptions(at::kBFloat16);
  EXPECT_TRUE(Product(at::zeros({2, 0}, bf16), at::zeros({0, 3}, bf16)).eq(0).all().item<bool>());
  EXPECT_EQ(Product(at::zeros({0, 4}, bf16), at::zeros({4, 3}, bf16)).numel(), 0);
}

TEST(ProductTest, ScratchIsBoundedAndOnlyWhereBlocksAreWidened) {
  const int64_t small = ProductScratchBytes(3, 5, 7), large = ProductScratchBytes(9000, 9000, 9000);
  if (LibTorchMultipliesBf16()) {
    EXPECT_EQ(large, 0);
  } else {
    EXPECT_EQ(small, 4 * (3 * 7 + 3 * 5 + 5 * 7));
    EXPECT_EQ(large, 9 << 20);
  }
}

TEST(ProductTest, WrongInputsAreTheCallersError) {
  const auto expect = [](const auto& call) {
    try {
      call();
      ADD_FAILURE() << "accepted";
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kInvalidArgument) << error.what();
    }
  };
  const at::Tensor a = at::zeros({2, 4}), b = at::zeros({4, 3});
  at::Tensor wrong = at::zeros({3, 2}), narrow = at::zeros({2, 3}).to(at::kBFloat16);
  expect([&] { Product(a, at::zeros({3, 4})); });
  expect([&] { Product(a, b.to(at::kBFloat16)); });
  expect([&] { ProductInto(wrong, a, b); });
  expect([&] { ProductInto(narrow, a, b); });
  expect([&] { AddProduct(narrow, a, b); });
  expect([&] { AddWidenedProduct(narrow, a, b); });
}

}  // namespace
}  // namespace lwm::ops
