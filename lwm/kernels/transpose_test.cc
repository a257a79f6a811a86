#include "lwm/kernels/transpose.h"

#include <gtest/gtest.h>

#include <vector>

#include "lwm/kernels/for_each_target.h"

namespace lwm::kernels {
namespace {

void ExpectTransposed(size_t rows, size_t cols, const char* where) {
  const size_t from_stride = cols + 3, to_stride = rows + 2;
  std::vector<uint16_t> from(rows * from_stride), to(cols * to_stride, 0xABCD);
  for (size_t i = 0; i < from.size(); ++i) from[i] = static_cast<uint16_t>(i * 2654435761u >> 7);
  Transpose(from.data(), rows, cols, from_stride, to.data(), to_stride);
  for (size_t c = 0; c < cols; ++c)
    for (size_t r = 0; r < to_stride; ++r)
      ASSERT_EQ(to[c * to_stride + r], r < rows ? from[r * from_stride + c] : 0xABCD)
          << where << " " << rows << " x " << cols << " at " << r << ", " << c;
}

TEST(TransposeTest, MovesEveryElementOnEveryTargetAndTailLength) {
  ForEachTarget([](const char* target) {
    for (size_t n = 1; n <= 67; ++n) {
      ExpectTransposed(n, 67 - n + 1, target);
      ExpectTransposed(33, n, target);
      ExpectTransposed(n, 64, target);
    }
  });
}

}  // namespace
}  // namespace lwm::kernels
