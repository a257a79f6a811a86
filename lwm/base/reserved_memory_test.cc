#include "lwm/base/reserved_memory.h"

#include <gtest/gtest.h>

#include <cstring>

#include "lwm/base/error.h"
#include "lwm/base/process.h"

namespace lwm {
namespace {

constexpr size_t kMiB = size_t{1} << 20;

TEST(ReservedMemoryTest, CostsOnlyWhatIsWritten) {
  const int64_t before = ResidentMemoryBytes();
  const ReservedMemory memory(kMiB << 16);  // 64 GiB, more than many machines have
  std::memset(memory.data() + (kMiB << 14), 1, 8 * kMiB);
  const int64_t grown = ResidentMemoryBytes() - before;
  EXPECT_GE(grown, static_cast<int64_t>(8 * kMiB) - 65536);
  EXPECT_LE(grown, static_cast<int64_t>(12 * kMiB));
}

TEST(ReservedMemoryTest, DiscardedPagesReadAsZeroAndNeighboursStay) {
  const ReservedMemory memory(kMiB);
  std::memset(memory.data(), 7, kMiB);
  memory.Discard(100, kMiB / 2);
  EXPECT_EQ(memory.data()[100], std::byte{7});  // its page is not wholly in the range
  EXPECT_EQ(memory.data()[kMiB / 4], std::byte{0});
  EXPECT_EQ(memory.data()[kMiB / 2 + 100], std::byte{7});
}

TEST(ReservedMemoryTest, AnImpossibleSizeIsAnErrorThatNamesIt) {
  try {
    ReservedMemory memory(size_t{1} << 62);
    FAIL() << "accepted";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kResourceExhausted);
    EXPECT_NE(std::string(error.what()).find("4096.0 PiB"), std::string::npos) << error.what();
  }
}

TEST(ReservedMemoryTest, MovedFromIsEmpty) {
  ReservedMemory first(kMiB);
  first.data()[5] = std::byte{9};
  const ReservedMemory second(std::move(first));
  EXPECT_EQ(second.data()[5], std::byte{9});
  EXPECT_EQ(second.bytes(), kMiB);
}

}  // namespace
}  // namespace lwm
