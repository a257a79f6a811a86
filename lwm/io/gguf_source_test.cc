#include "lwm/io/gguf_source.h"

#include <gtest/gtest.h>

#include <cmath>
#include <cstring>
#include <numeric>

#include "lwm/base/file.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::RefusalOf;
using testing_support::TemporaryFolder;
using testing_support::ValuesOf;

void Parse(std::span<const std::byte> bytes) {
  const GgufFile file = ParseGguf(bytes, "x");
  for (const GgufTensor& tensor : file.tensors) {
    const GgufTypeInfo type = *FindGgufType(static_cast<uint32_t>(tensor.type));
    if (type.block > 1) {
      std::vector<float> weights(tensor.bytes.size() / type.bytes * type.block);
      Dequantize(tensor.type, tensor.bytes, weights);
    } else {
      HashHex(tensor.bytes);
    }
  }
}

GgufKeys SmallKeys() {
  GgufKeys keys;
  keys.AddText("general.architecture", "llama");
  keys.AddUnsigned("count", 7);
  keys.AddFloat("pi", 3.25f);
  keys.AddFlag("yes", true);
  keys.AddTexts("words", std::vector<std::string>{"a", "", "ccc"});
  keys.AddFloats("scores", std::vector<float>{1, -2.5f});
  keys.AddIntegers("types", std::vector<int32_t>{3, -4, 5});
  return keys;
}

std::vector<float> Ramp(size_t count) {
  std::vector<float> values(count);
  std::iota(values.begin(), values.end(), -5.0f);
  return values;
}

std::string WriteSmallFile(const std::filesystem::path& path) {
  GgufWriter writer(path, SmallKeys(),
                    {{"norm", {5}, GgufType::kF32},
                     {"blocks", {2, 32}, GgufType::kQ8_0},
                     {"last", {3}, GgufType::kF32}});
  const auto ramp = Ramp(64);
  writer.Write("norm", std::as_bytes(std::span(ramp).first(5)));
  std::vector<std::byte> blocks(68);
  Quantize(GgufType::kQ8_0, ramp, blocks);
  writer.Write("blocks", std::span(blocks).first(10));
  writer.Write("blocks", std::span(blocks).subspan(10));
  writer.Write("last", std::as_bytes(std::span(ramp).first(3)));
  writer.Finish();
  return ReadFile(path);
}

// The small file with the little-endian number after `key` and its type replaced.
template <class T>
std::string WithValue(std::string file, const std::string& key, size_t skip, T value) {
  const size_t at = file.find(key);
  EXPECT_NE(at, std::string::npos);
  std::memcpy(file.data() + at + key.size() + skip, &value, sizeof(value));
  return file;
}

TEST(GgufSourceTest, WrittenFileReadsBackWithMetadata) {
  TemporaryFolder folder;
  WriteSmallFile(folder / "a.gguf");
  const GgufSource source(folder / "a.gguf");
  EXPECT_EQ(source.metadata().Integer("count"), 7);
  EXPECT_EQ(source.metadata().Number("pi"), 3.25);
  EXPECT_EQ(source.metadata().Number("count"), 7.0);
  EXPECT_EQ(source.metadata().Flag("yes"), true);
  EXPECT_EQ(source.metadata().Text("general.architecture"), "llama");
  EXPECT_EQ(source.metadata().Texts("words"), (std::vector<std::string>{"a", "", "ccc"}));
  EXPECT_EQ(source.metadata().Numbers("scores"), (std::vector<double>{1, -2.5}));
  EXPECT_EQ(source.metadata().Numbers("types"), (std::vector<double>{3, -4, 5}));
  EXPECT_EQ(source.metadata().Integer("absent"), std::nullopt);
  EXPECT_ERROR(source.metadata().Integer("pi"), kCorruptData);
  EXPECT_ERROR(source.metadata().Text("words"), kCorruptData);
  EXPECT_ERROR(source.metadata().Texts("types"), kCorruptData);
  EXPECT_EQ(ValuesOf(source, "last"), (std::vector<double>{-5, -4, -3}));
  EXPECT_EQ(source.info("blocks").shape, (std::vector<int64_t>{2, 32}));
  EXPECT_EQ(source.Encoding(source.IndexOf("blocks")), "Q8_0");
  const auto blocks = ValuesOf(source, "blocks");
  for (size_t i = 0; i < 64; ++i) EXPECT_NEAR(blocks[i], Ramp(64)[i], 0.25);
}

TEST(GgufSourceTest, PartsOfBlocksEqualTheWhole) {
  TemporaryFolder folder;
  WriteSmallFile(folder / "a.gguf");
  const GgufSource source(folder / "a.gguf");
  const auto whole = ValuesOf(source, "blocks");
  std::vector<float> second(32);
  source.ReadRange(source.IndexOf("blocks"), 128, std::as_writable_bytes(std::span(second)));
  for (size_t i = 0; i < 32; ++i) EXPECT_EQ(second[i], static_cast<float>(whole[32 + i]));
}

TEST(GgufSourceTest, LiesAreNamed) {
  TemporaryFolder folder;
  const std::string file = WriteSmallFile(folder / "a.gguf");
  const auto refusal = [&](const std::string& key, size_t skip, auto value) {
    return RefusalOf(WithValue(file, key, skip, value), Parse);
  };
  const auto expect = [](const std::string& message, const char* part) {
    EXPECT_NE(message.find(part), std::string::npos) << message;
  };
  expect(refusal("GGUF", 0, uint32_t{1}), "version 1");
  expect(refusal("GGUF", 0, uint32_t{0x03000000}), "big-endian");
  expect(refusal("GGUF", 4, ~uint64_t{0}), "too many tensors");
  expect(refusal("GGUF", 12, ~uint64_t{0}), "too many metadata keys");
  expect(refusal("count", 0, uint32_t{99}), "metadata of type 99");
  expect(refusal("words", 8, ~uint64_t{0}), "truncated");
  expect(refusal("scores", 8, uint64_t{1} << 62), "longer than the file");
  expect(refusal("norm", 0, uint32_t{9}), "9 dimensions");
  expect(refusal("norm", 4, uint64_t{1} << 60), "norm");
  expect(refusal("norm", 12, uint32_t{17}), "norm is of GGUF type IQ2_XS, which is not supported");
  expect(refusal("norm", 12, uint32_t{39}), "MXFP4");
  expect(refusal("norm", 12, uint32_t{34}), "TQ1_0");
  expect(refusal("norm", 12, uint32_t{99}), "type 99");
  expect(refusal("norm", 12, uint32_t{12}), "no whole Q4_K blocks");
  expect(RefusalOf(file.substr(0, file.size() - 32), Parse), "truncated: 12 of ");
  expect(refusal("norm", 16, uint64_t{1} << 40), "lies outside the file");
  expect(refusal("blocks", 4, uint64_t{31}), "no whole Q8_0 blocks");
  expect(refusal("blocks", 12, uint64_t{3}), "");
}

}  // namespace
}  // namespace lwm::io
