#include "lwm/io/strided.h"

#include <gtest/gtest.h>

#include <numeric>

#include "lwm/base/error.h"
#include "lwm/testing/error_of.h"

namespace lwm::io {
namespace {

template <class T>
std::vector<std::byte> Storage(size_t elements) {
  std::vector<T> values(elements);
  std::iota(values.begin(), values.end(), T{});
  const auto bytes = std::as_bytes(std::span(values));
  return {bytes.begin(), bytes.end()};
}

template <class T>
void ExpectGathers(DType dtype) {
  const auto storage = Storage<T>(60);
  const StridedTensor tensor = {dtype, {3, 4, 2}, {1, 12, 5}, 7, storage};
  CheckStrided(tensor, "x");
  std::vector<T> expected;
  for (int i = 0; i < 3; ++i)
    for (int j = 0; j < 4; ++j)
      for (int k = 0; k < 2; ++k) expected.push_back(static_cast<T>(7 + i + 12 * j + 5 * k));
  for (size_t begin = 0; begin < 24; ++begin) {
    for (size_t end = begin; end <= 24; ++end) {
      std::vector<T> got(end - begin);
      ReadStrided(tensor, begin * sizeof(T), std::as_writable_bytes(std::span(got)));
      EXPECT_TRUE(std::equal(got.begin(), got.end(), expected.begin() + static_cast<long>(begin)));
    }
  }
}

TEST(StridedTest, AnyRangeOfAPermutedViewIsGathered) {
  ExpectGathers<uint8_t>(DType::kU8);
  ExpectGathers<int16_t>(DType::kI16);
  ExpectGathers<float>(DType::kF32);
  ExpectGathers<double>(DType::kF64);
}

TEST(StridedTest, WhatDoesNotLieInTheStorageIsRefused) {
  const auto storage = Storage<float>(12);
  const auto check = [&](std::vector<int64_t> shape, std::vector<int64_t> strides, int64_t offset) {
    CheckStrided({DType::kF32, std::move(shape), std::move(strides), offset, storage}, "x");
  };
  check({3, 4}, {4, 1}, 0);
  check({2, 4}, {4, 1}, 4);
  check({}, {}, 11);
  check({0, 9}, {1, 1}, 99);
  EXPECT_ERROR(check({2, 4}, {4, 1}, 5), kCorruptData);
  EXPECT_ERROR(check({3, 4}, {5, 1}, 0), kCorruptData);
  EXPECT_ERROR(check({3}, {-1}, 5), kCorruptData);
  EXPECT_ERROR(check({3}, {1}, -1), kCorruptData);
  EXPECT_ERROR(check({13}, {0}, 0), kCorruptData);  // expanded
  EXPECT_ERROR(check({2, 2}, {1}, 0), kCorruptData);
  EXPECT_ERROR(check({2}, {INT64_MAX}, 1), kCorruptData);
  EXPECT_ERROR(check({-1}, {1}, 0), kCorruptData);
  EXPECT_ERROR(check({INT64_MAX, INT64_MAX}, {1, 1}, 0), kCorruptData);
  EXPECT_ERROR(check({}, {}, 12), kCorruptData);
}

}  // namespace
}  // namespace lwm::io
