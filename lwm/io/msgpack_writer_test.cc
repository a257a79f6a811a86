#include "lwm/io/msgpack_writer.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/io/msgpack_stream.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::GoldenFolder;
using testing_support::TemporaryFolder;

// Writes the arrays of a published file, in pieces; its Python scalars are left out.
std::string WriteAgain(const MsgpackSource& source, const std::filesystem::path& path,
                       uint64_t chunk_bytes) {
  MsgpackWriter writer(path, chunk_bytes);
  for (size_t i = 0; i < source.infos().size(); ++i) {
    const TensorInfo& info = source.infos()[i];
    if (info.name == "step" || info.name == "pi" || info.name == "npscalar") continue;
    std::vector<std::byte> data(TensorBytes(info));
    source.ReadRange(i, 0, data);
    writer.Begin(info);
    writer.Write(std::span(data).first(data.size() / 3));
    writer.Write(std::span(data).subspan(data.size() / 3));
  }
  writer.Finish();
  return ReadFile(path);
}

void ExpectSameBytes(const char* published, uint64_t chunk_bytes) {
  TemporaryFolder folder;
  const auto path = GoldenFolder("jax_msgpack") / published;
  const MsgpackSource source(path);
  const std::string written = WriteAgain(source, folder / "a", chunk_bytes);
  const std::string original = ReadFile(path);
  // The records before the first scalar make up most of the file.
  const size_t scalars = original.find(std::string("\x92\x91\xa4") + "step");
  ASSERT_GT(scalars, original.size() / 2);
  EXPECT_EQ(written.substr(0, scalars), original.substr(0, scalars));
  EXPECT_EQ(MsgpackSource(folder / "a").infos().size(), source.infos().size() - 3);
}

TEST(MsgpackWriterTest, PublishedArraysAreWrittenByteForByte) {
  ExpectSameBytes("zoo_streaming", MsgpackWriter::kChunkBytes);
  ExpectSameBytes("zoo_streaming_chunked", 400);
}

TEST(MsgpackWriterTest, ArrayBeyondTheFormatsLimitIsRefusedBeforeWriting) {
  TemporaryFolder folder;
  MsgpackWriter writer(folder / "a");
  EXPECT_ERROR(writer.Begin({"x", DType::kF32, {int64_t{1} << 30}}), kInvalidArgument);
}

TEST(MsgpackWriterTest, IncompleteRecordIsNoticed) {
  TemporaryFolder folder;
  MsgpackWriter writer(folder / "a");
  writer.Begin({"x", DType::kF32, {2}});
  EXPECT_ERROR(writer.Write(std::vector<std::byte>(9)), kInternal);
  writer.Write(std::vector<std::byte>(4));
  EXPECT_ERROR(writer.Begin({"y", DType::kF32, {2}}), kInternal);
  EXPECT_ERROR(writer.Finish(), kInternal);
}

}  // namespace
}  // namespace lwm::io
