#include "lwm/ops/scratch_memory.h"

#include <ATen/ATen.h>
#include <gtest/gtest.h>

#include <cstdint>
#include <memory>
#include <optional>

namespace lwm::ops {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(ScratchMemoryTest, SameMemoryServesTheNextCallOfThatSize) {
  std::optional<ScratchMemory> first(std::in_place, 24 * kMiB);
  char* const data = first->data();
  EXPECT_EQ(reinterpret_cast<uintptr_t>(data) % 4096, 0u);
  const ScratchMemory second(24 * kMiB);
  EXPECT_NE(second.data(), data) << "in use";
  first.reset();
  const ScratchMemory third(20 * kMiB);
  EXPECT_EQ(third.data(), data);
}

TEST(ScratchMemoryTest, LittleDoesNotHoldOnToMuch) {
  std::optional<ScratchMemory> large(std::in_place, 48 * kMiB);
  char* const data = large->data();
  large.reset();
  const ScratchMemory little(kMiB);
  EXPECT_NE(little.data(), data);
}

TEST(ScratchMemoryTest, TensorGivesItsMemoryBackWithTheLastReference) {
  at::Tensor x = ScratchTensor({3, 1024, 1024}, at::kFloat);
  EXPECT_TRUE(x.is_contiguous());
  EXPECT_EQ(x.scalar_type(), at::kFloat);
  x.fill_(2);
  EXPECT_EQ(x.sum().item<float>(), 2.0f * 3 * 1024 * 1024);
  const void* const data = x.data_ptr();
  at::Tensor part = x[1];
  x.reset();
  EXPECT_NE(ScratchTensor({3, 1024, 1024}, at::kFloat).data_ptr(), data);
  part.reset();
  at::Tensor last = ScratchTensor({3, 1024, 1024}, at::kFloat);
  at::Tensor other = ScratchTensor({3, 1024, 1024}, at::kFloat);
  EXPECT_TRUE(last.data_ptr() == data || other.data_ptr() == data);
  EXPECT_EQ(ScratchTensor({0, 4}, at::kBFloat16).numel(), 0);
}

}  // namespace
}  // namespace lwm::ops
