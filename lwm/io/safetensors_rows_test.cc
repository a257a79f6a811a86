#include "lwm/io/safetensors_rows.h"

#include <gtest/gtest.h>

#include <cstring>
#include <vector>

#include "lwm/io/safetensors.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
using testing_support::TemporaryFolder;

template <class T>
std::span<const std::byte> BytesOf(const std::vector<T>& values) {
  return std::as_bytes(std::span(values));
}

TEST(SafetensorsRowsTest, RowsThatArriveInTurnsReadBackWhole) {
  const TemporaryFolder folder;
  SafetensorsRows rows(folder / "x.safetensors",
                       {{"flags", DType::kU8, {1}}, {"codes", DType::kI32, {2, 2}}});
  std::vector<int32_t> all;
  for (int32_t i = 0; i < 5; ++i) {
    const std::vector<int32_t> code_n = {i, 10 + i, 20 + i, 30 + i};
    rows.Append(1, BytesOf(code_n));
    if (i < 3) rows.Append(0, BytesOf(std::vector<uint8_t>{static_cast<uint8_t>(i)}));
    all.insert(all.end(), code_n.begin(), code_n.end());
  }
  EXPECT_FALSE(std::filesystem::exists(folder / "x.safetensors"));
  rows.Finish();
  const SafetensorsFile file(folder / "x.safetensors");
  EXPECT_EQ(file.info("codes").shape, (std::vector<int64_t>{5, 2, 2}));
  EXPECT_EQ(file.info("flags").shape, (std::vector<int64_t>{3, 1}));
  const auto bytes = file.bytes("codes");
  EXPECT_EQ(reinterpret_cast<uintptr_t>(bytes.data()) % 4, 0u);
  EXPECT_EQ(std::memcmp(bytes.data(), all.data(), bytes.size()), 0);
  size_t files = 0;
  for ([[maybe_unused]] const auto& entry : std::filesystem::directory_iterator(folder.path()))
    ++files;
  EXPECT_EQ(files, 1u);
}

TEST(SafetensorsRowsTest, NoRowsAreATensorOfNone) {
  const TemporaryFolder folder;
  SafetensorsRows rows(folder / "x.safetensors", {{"codes", DType::kI32, {16, 16}}});
  rows.Finish();
  EXPECT_EQ(SafetensorsFile(folder / "x.safetensors").info("codes").shape,
            (std::vector<int64_t>{0, 16, 16}));
}

TEST(SafetensorsRowsTest, UnfinishedLeavesNothing) {
  const TemporaryFolder folder;
  {
    SafetensorsRows rows(folder / "x.safetensors", {{"codes", DType::kI32, {1}}});
    rows.Append(0, BytesOf(std::vector<int32_t>{1, 2, 3}));
  }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

TEST(SafetensorsRowsTest, TwoWritersOfOneFileDoNotDisturbEachOther) {
  const TemporaryFolder folder;
  const std::vector<TensorInfo> row = {{"codes", DType::kI32, {1}}};
  SafetensorsRows first(folder / "x.safetensors", row);
  SafetensorsRows last(folder / "x.safetensors", row);
  first.Append(0, BytesOf(std::vector<int32_t>{1, 2, 3}));
  last.Append(0, BytesOf(std::vector<int32_t>{7}));
  first.Finish();
  EXPECT_EQ(SafetensorsFile(folder / "x.safetensors").info("codes").shape[0], 3);
  last.Finish();
  const SafetensorsFile file(folder / "x.safetensors");
  EXPECT_EQ(file.info("codes").shape[0], 1);
  EXPECT_EQ(file.bytes("codes")[0], std::byte{7});
}

}  // namespace
}  // namespace lwm::io
