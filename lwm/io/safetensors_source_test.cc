#include "lwm/io/safetensors_source.h"

#include <gtest/gtest.h>

#include <array>
#include <numeric>

#include "lwm/base/file.h"
#include "lwm/io/open_tensor_source.h"
#include "lwm/io/safetensors.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

// A file of an f32 norm and a matrix of two rows in blocks.
void WriteBlocks(const std::filesystem::path& path, GgufType type) {
  std::array<float, 128> weights;
  std::iota(weights.begin(), weights.end(), -60.0f);
  const GgufTypeInfo info = *FindGgufType(static_cast<uint32_t>(type));
  std::vector<std::byte> blocks(4 * info.bytes);
  Quantize(type, weights, blocks);
  SafetensorsWriter writer(
      path,
      {{"norm", DType::kF32, {3}}, {"w", DType::kU8, {2, static_cast<int64_t>(2 * info.bytes)}}},
      {{kSafetensorsBlocks, std::string(info.name)}});
  writer.Write("norm", std::as_bytes(std::span(weights).first(3)));
  writer.Write("w", blocks);
  writer.Finish();
}

// The first bytes of such a file, its header's length, are then those of a pickle.
TEST(SafetensorsSourceTest, HeaderOfAnyLengthIsRecognised) {
  const TemporaryFolder folder;
  for (const size_t length : {640, 896, 1152, 1408, 65536 + 640}) {
    std::string file = R"({"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}})";
    file.append(length - file.size(), ' ');
    file += "\x01\x02\x03\x04";
    for (int byte = 7; byte >= 0; --byte)
      file.insert(file.begin(), static_cast<char>(length >> (8 * byte) & 255));
    WriteFileAtomically(folder / "a.bin", file);
    EXPECT_EQ(OpenTensorSource(folder / "a.bin")->format(), "safetensors") << length;
  }
}

TEST(SafetensorsSourceTest, BlocksAreReadAsTheirWeights) {
  for (const auto& [type, step] : {std::pair(GgufType::kQ8_0, 0.5), {GgufType::kQ4_0, 8.5}}) {
    const TemporaryFolder folder;
    WriteBlocks(folder / "a.safetensors", type);
    const SafetensorsSource source(folder / "a.safetensors");
    const size_t index = source.IndexOf("w");
    const GgufTypeInfo info = *FindGgufType(static_cast<uint32_t>(type));
    EXPECT_EQ(source.Encoding(index), info.name);
    EXPECT_EQ(source.infos()[index].dtype, DType::kF32);
    EXPECT_EQ(source.infos()[index].shape, (std::vector<int64_t>{2, 64}));
    EXPECT_EQ(source.StoredBytes(index), 4 * info.bytes);
    EXPECT_TRUE(source.View(index).empty());
    const auto values = testing_support::ValuesOf(source, "w");
    for (size_t i = 0; i < values.size(); ++i)
      EXPECT_NEAR(values[i], -60.0 + static_cast<double>(i), step);
    EXPECT_EQ(testing_support::ValuesOf(source, "norm"), (std::vector<double>{-60, -59, -58}));
    std::array<float, 32> third;
    source.ReadRange(index, 2 * 32 * sizeof(float), std::as_writable_bytes(std::span(third)));
    for (size_t i = 0; i < 32; ++i) EXPECT_EQ(third[i], static_cast<float>(values[64 + i]));
  }
}

TEST(SafetensorsSourceTest, BytesWithoutTheKeyStayBytes) {
  const TemporaryFolder folder;
  SafetensorsWriter writer(folder / "a.safetensors", {{"w", DType::kU8, {1, 34}}});
  writer.Write("w", std::vector<std::byte>(34, std::byte{7}));
  writer.Finish();
  const SafetensorsSource source(folder / "a.safetensors");
  EXPECT_EQ(source.info("w").dtype, DType::kU8);
  EXPECT_EQ(testing_support::ValuesOf(source, "w"), std::vector<double>(34, 7));
}

}  // namespace
}  // namespace lwm::io
