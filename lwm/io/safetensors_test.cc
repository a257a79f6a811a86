#include "lwm/io/safetensors.h"

#include <gtest/gtest.h>

#include <cstring>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

std::span<const std::byte> AsBytes(std::string_view text) {
  return std::as_bytes(std::span(text.data(), text.size()));
}

std::string WithHeader(const std::string& header, size_t data_bytes) {
  const uint64_t length = header.size();
  std::string file(reinterpret_cast<const char*>(&length), 8);
  return file + header + std::string(data_bytes, '\x01');
}

std::string ErrorOf(const std::string& file) {
  try {
    ParseSafetensors(AsBytes(file), "x.safetensors");
    return "";
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << error.what();
    return error.what();
  }
}

const std::vector<TensorInfo> kInfos = {
    {"matrix", DType::kF32, {2, 3}}, {"none", DType::kF32, {0, 4}}, {"flag", DType::kBool, {}}};

std::string WriteSmallFile(const std::filesystem::path& path) {
  SafetensorsWriter writer(path, kInfos, {{"made by", "a test"}});
  const float matrix[6] = {1, 2, 3, 4, 5, 6};
  const auto bytes = std::as_bytes(std::span(matrix));
  writer.Write("matrix", bytes.first(5));
  writer.Write("matrix", bytes.subspan(5));
  writer.Write("flag", AsBytes(std::string_view("\x01", 1)));
  writer.Finish();
  return ReadFile(path);
}

TEST(SafetensorsTest, WrittenFileReadsBackInOrderWithAlignedData) {
  TemporaryFolder folder;
  WriteSmallFile(folder / "a.safetensors");
  const SafetensorsFile file(folder / "a.safetensors");
  ASSERT_EQ(file.infos().size(), 3u);
  for (size_t i = 0; i < 3; ++i) {
    EXPECT_EQ(file.infos()[i].name, kInfos[i].name);
    EXPECT_EQ(file.infos()[i].dtype, kInfos[i].dtype);
    EXPECT_EQ(file.infos()[i].shape, kInfos[i].shape);
  }
  float matrix[6];
  ASSERT_EQ(file.bytes("matrix").size(), sizeof(matrix));
  EXPECT_EQ(reinterpret_cast<uintptr_t>(file.bytes("matrix").data()) % 8, 0u);
  std::memcpy(matrix, file.bytes("matrix").data(), sizeof(matrix));
  EXPECT_EQ(matrix[5], 6);
  EXPECT_EQ(file.bytes("none").size(), 0u);
  EXPECT_EQ(file.bytes("flag")[0], std::byte{1});
  EXPECT_EQ(file.metadata().at("made by"), "a test");
  file.Forget("matrix");
  EXPECT_EQ(file.bytes("matrix")[0], std::byte{0});  // 1.0f, read again from disk
}

TEST(SafetensorsTest, UnknownTensorIsNamed) {
  TemporaryFolder folder;
  WriteSmallFile(folder / "a.safetensors");
  const SafetensorsFile file(folder / "a.safetensors");
  try {
    file.bytes("absent");
    FAIL();
  } catch (const Error& error) {
    EXPECT_EQ(error.code(), ErrorCode::kNotFound);
    EXPECT_NE(std::string(error.what()).find("absent"), std::string::npos);
  }
}

TEST(SafetensorsTest, LiesInTheHeaderAreNamed) {
  const auto error_of_entry = [](const std::string& entry, size_t data_bytes) {
    return ErrorOf(WithHeader("{\"t\":" + entry + "}", data_bytes));
  };
  using testing::IsSubstring;
  EXPECT_EQ(error_of_entry(R"({"dtype":"F32","shape":[2],"data_offsets":[0,8]})", 8), "");
  const std::pair<const char*, const char*> cases[] = {
      {R"({"dtype":"F99","shape":[2],"data_offsets":[0,8]})", "F99"},
      {R"({"dtype":"F32","shape":[3],"data_offsets":[0,8]})", "does not fill"},
      {R"({"dtype":"F64","shape":[2],"data_offsets":[0,8]})", "does not fill"},
      {R"({"dtype":"F32","shape":[2.5],"data_offsets":[0,8]})", "2.5"},
      {R"({"dtype":"F32","shape":[-2],"data_offsets":[0,8]})", "-2"},
      {R"({"dtype":"F32","shape":2,"data_offsets":[0,8]})", "not an array"},
      {R"({"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]})", "fill"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,16]})", "does not fill"},
      {R"({"dtype":"F32","shape":[4],"data_offsets":[0,16]})", "truncated: 8 of 16 bytes"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[8,0]})", "end before they begin"},
      {R"({"dtype":"F8_E4M3","shape":[8],"data_offsets":[0,8]})", "quantised to FP8"},
      {R"({"dtype":"F4","shape":[8],"data_offsets":[0,8]})", "quantised to FP4"},
      {R"({"dtype":"F32","shape":[2],"data_offsets":[0,8,9]})", "pair"},
      {R"({"dtype":"F32","shape":[1],"data_offsets":[0,4]})", "the file has"},
      {R"({"dtype":"F32","shape":[1],"data_offsets":[4,8]})", "starts at byte 4"},
      {R"({"shape":[2],"data_offsets":[0,8]})", "dtype"},
      {R"(7)", "dtype"},
  };
  for (const auto& [entry, expected] : cases)
    EXPECT_TRUE(IsSubstring("", "", expected, error_of_entry(entry, 8))) << entry;
}

TEST(SafetensorsTest, OverlapIsRefused) {
  const std::string header = R"({"a":{"dtype":"U8","shape":[4],"data_offsets":[0,4]},)"
                             R"("b":{"dtype":"U8","shape":[4],"data_offsets":[2,6]}})";
  EXPECT_NE(ErrorOf(WithHeader(header, 6)).find("starts at byte 2"), std::string::npos);
}

TEST(SafetensorsTest, HeaderLengthBeyondTheFileIsRefused) {
  for (const auto& [length, part] : std::vector<std::pair<uint64_t, const char*>>{
           {9, "truncated: the header takes 9 bytes"},
           {uint64_t{1} << 40, "header of 1099511627776 bytes"},
           {~uint64_t{0}, "header of 18446744073709551615 bytes"}}) {
    std::string file = WithHeader("{}      ", 0);
    std::memcpy(file.data(), &length, 8);
    EXPECT_NE(ErrorOf(file).find(part), std::string::npos) << ErrorOf(file);
  }
}

TEST(SafetensorsTest, RepeatedNameOrImpossibleShapeIsRefusedBeforeWriting) {
  TemporaryFolder folder;
  const auto write = [&](const std::vector<TensorInfo>& infos) {
    SafetensorsWriter(folder / "a.safetensors", infos);
  };
  EXPECT_ERROR(write({{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}}), kInvalidArgument);
  EXPECT_ERROR(write({{"a", DType::kF32, {INT64_MAX, 2}}}), kInvalidArgument);
  EXPECT_ERROR(write({{"a", DType::kF32, {-1}}}), kInvalidArgument);
}

TEST(SafetensorsTest, IncompleteOrMisorderedWriteIsNoticed) {
  TemporaryFolder folder;
  SafetensorsWriter writer(folder / "a.safetensors", kInfos);
  EXPECT_ERROR(writer.Write("flag", AsBytes("1")), kInternal);
  EXPECT_ERROR(writer.Write("matrix", AsBytes(std::string(25, 'x'))), kInternal);
  writer.Write("matrix", AsBytes(std::string(23, 'x')));
  EXPECT_ERROR(writer.Finish(), kInternal);
}

TEST(SafetensorsTest, TwoWritersOfOneFileDoNotDisturbEachOther) {
  TemporaryFolder folder;
  const std::vector<TensorInfo> infos = {{"a", DType::kU8, {2}}};
  SafetensorsWriter first(folder / "a.safetensors", infos);
  SafetensorsWriter last(folder / "a.safetensors", infos);
  first.Write("a", AsBytes("12"));
  last.Write("a", AsBytes("34"));
  first.Finish();
  EXPECT_TRUE(ReadFile(folder / "a.safetensors").ends_with("12"));
  last.Finish();
  EXPECT_TRUE(ReadFile(folder / "a.safetensors").ends_with("34"));
}

TEST(SafetensorsTest, UnfinishedWriteLeavesNothingBehind) {
  TemporaryFolder folder;
  { SafetensorsWriter writer(folder / "a.safetensors", kInfos); }
  EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
}

}  // namespace
}  // namespace lwm::io
