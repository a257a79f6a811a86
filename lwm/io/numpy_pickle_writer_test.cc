#include "lwm/io/numpy_pickle_writer.h"

#include <gtest/gtest.h>

#include <map>
#include <string>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/numpy_pickle_source.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::TemporaryFolder;

std::vector<std::byte> BytesOf(const TensorInfo& info) {
  std::vector<std::byte> bytes(TensorBytes(info));
  for (size_t i = 0; i < bytes.size(); ++i)
    bytes[i] = static_cast<std::byte>(i * 7 + info.name.size());
  return bytes;
}

TEST(NumpyPickleWriterTest, ReadsBackEqualInEveryTypeAndDepth) {
  const TemporaryFolder folder;
  const std::vector<TensorInfo> infos = {
      {"quantize/embeddings", DType::kF32, {6, 300}},  {"encoder/b/deep/er/x", DType::kF16, {3}},
      {"encoder/b/kernel", DType::kF64, {3, 3, 1, 2}}, {"encoder/a", DType::kI32, {2}},
      {"encoder/b/deep/y", DType::kU8, {70000}},       {"alone", DType::kI64, {}},
      {"encoder-2/empty", DType::kBool, {0, 4}}};
  WriteNumpyPickle(folder / "p", infos, BytesOf);
  const NumpyPickleSource source(folder / "p");
  ASSERT_EQ(source.infos().size(), infos.size());
  for (const TensorInfo& info : infos) {
    EXPECT_EQ(source.info(info.name).shape, info.shape) << info.name;
    EXPECT_EQ(source.info(info.name).dtype, info.dtype) << info.name;
    std::vector<std::byte> bytes(TensorBytes(info));
    source.Read(info.name, bytes);
    EXPECT_EQ(bytes, BytesOf(info)) << info.name;
  }
}

TEST(NumpyPickleWriterTest, KeysStandInSortedOrder) {
  const TemporaryFolder folder;
  WriteNumpyPickle(folder / "p",
                   {{"b/y", DType::kF32, {1}}, {"a", DType::kF32, {1}}, {"b/x", DType::kF32, {1}}},
                   BytesOf);
  const NumpyPickleSource source(folder / "p");
  ASSERT_EQ(source.infos().size(), 3u);
  EXPECT_EQ(source.infos()[0].name, "a");
  EXPECT_EQ(source.infos()[1].name, "b/x");
  EXPECT_EQ(source.infos()[2].name, "b/y");
}

TEST(NumpyPickleWriterTest, WhatIsNoTreeOfNumpyArraysIsRefused) {
  const TemporaryFolder folder;
  const auto refuse = [&](const std::vector<TensorInfo>& infos) {
    EXPECT_ERROR(WriteNumpyPickle(folder / "p", infos, BytesOf), kInvalidArgument);
    EXPECT_TRUE(std::filesystem::is_empty(folder.path()));
  };
  refuse({{"a", DType::kBF16, {1}}});
  refuse({{"a", DType::kF32, {1}}, {"a", DType::kF32, {1}}});
  refuse({{"a", DType::kF32, {1}}, {"a/b", DType::kF32, {1}}});
  refuse({{"", DType::kF32, {1}}});
  refuse({{"a//b", DType::kF32, {1}}});
}

}  // namespace
}  // namespace lwm::io
