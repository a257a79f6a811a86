#include "lwm/train/tensor_slice.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/random.h"
#include "lwm/testing/error_of.h"

namespace lwm::train {
namespace {

using Split = TensorSlice::Split;

// Indices in the whole tensor of a slice's elements, from the definition.
std::vector<float> IndicesOf(const TensorSlice& slice) {
  std::vector<float> indices;
  const int64_t width = slice.part_cols();
  for (int64_t i = slice.begin; i < slice.end; ++i) {
    int64_t row = i / width, col = i % width;
    if (slice.split == Split::kRows) row += slice.part * slice.part_rows();
    if (slice.split == Split::kCols) col += slice.part * width;
    indices.push_back(static_cast<float>(row * slice.cols + col));
  }
  return indices;
}

TensorSlice RandomSlice(Random& random, const std::vector<int64_t>& shape) {
  constexpr Split kSplits[] = {Split::kNone, Split::kRows, Split::kCols};
  const model::TensorSpec spec{"t", shape, kSplits[random.Below(shape.size() == 1 ? 2 : 3)]};
  const auto parts = static_cast<int64_t>(1 + random.Below(3));
  TensorSlice slice = PartSlice(spec, static_cast<int64_t>(random.Below(parts)), parts);
  const auto size = static_cast<uint64_t>(slice.end);
  slice.begin = static_cast<int64_t>(random.Below(size + 1));
  slice.end = slice.begin + static_cast<int64_t>(random.Below(size - slice.begin + 1));
  return slice;
}

TEST(TensorSliceTest, RunsAreTheElementsInOrder) {
  Random random(1);
  for (int trial = 0; trial < 300; ++trial) {
    const TensorSlice slice =
        RandomSlice(random, trial % 5 ? std::vector<int64_t>{6, 12} : std::vector<int64_t>{12});
    std::vector<float> indices;
    ForEachRun(slice, [&](int64_t first, int64_t offset, int64_t count) {
      EXPECT_EQ(offset, static_cast<int64_t>(indices.size()));
      for (int64_t i = 0; i < count; ++i) indices.push_back(static_cast<float>(first + i));
    });
    EXPECT_EQ(indices, IndicesOf(slice)) << SliceText(slice);
  }
}

TEST(TensorSliceTest, CopyMovesExactlyTheSharedElements) {
  Random random(2);
  for (int trial = 0; trial < 1000; ++trial) {
    const TensorSlice source = RandomSlice(random, {6, 12}), target = RandomSlice(random, {6, 12});
    const std::vector<float> from = IndicesOf(source), wanted = IndicesOf(target);
    std::vector<float> to(wanted.size(), -1);
    int64_t shared = 0;
    for (const float index : wanted)
      shared += std::find(from.begin(), from.end(), index) != from.end();
    ASSERT_EQ(CopyOverlap(source, from.data(), target, to.data()), shared)
        << SliceText(source) << " to " << SliceText(target);
    for (size_t i = 0; i < to.size(); ++i) {
      if (to[i] >= 0) {
        ASSERT_EQ(to[i], wanted[i]);
      }
    }
    ASSERT_EQ(std::count_if(to.begin(), to.end(), [](float x) { return x >= 0; }), shared);
  }
}

TEST(TensorSliceTest, TextComesBackTheSame) {
  const model::TensorSpec spec{"t", {6, 12}, Split::kCols};
  TensorSlice slice = PartSlice(spec, 1, 3);
  slice.begin = 5;
  EXPECT_EQ(SliceText(slice), "cols.2of3:5-24");
  const TensorSlice back = ParseSlice("cols.2of3:5-24", spec);
  EXPECT_EQ(IndicesOf(back), IndicesOf(slice));
  EXPECT_EQ(ParseSlice("whole:0-72", spec).size(), 72);
}

TEST(TensorSliceTest, TextThatNamesNoSliceIsRefused) {
  const model::TensorSpec spec{"t", {6, 12}, Split::kCols};
  for (const char* text :
       {"", "whole", "whole:0-73", "whole:5-4", "whole:-1-4", "whole:0-4x", "rows.1of2:0-4",
        "cols.0of2:0-4", "cols.3of2:0-4", "cols.1of5:0-4", "cols.1of3:0-25", "cols.1of0:0-0",
        "diag.1of2:0-4", "whole:0-99999999999999999999"})
    EXPECT_ERROR(ParseSlice(text, spec), kCorruptData) << text;
}

}  // namespace
}  // namespace lwm::train
