#include "lwm/io/msgpack_stream.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/source_values.h"

namespace lwm::io {
namespace {

using namespace std::string_literals;
using testing_support::ExpectSameTensor;
using testing_support::GoldenFolder;
using testing_support::RefusalOf;

// transformer/ln_f/kernel, bf16 [[1, 2, 3], [4, 5, 6]], as flax writes it.
const std::string kPayload =
    "\x93\x92\x02\x03\xa8"
    "bfloat16\xc4\x0c\x80\x3f\x00\x40\x40\x40\x80\x40\xa0\x40\xc0\x40"s;
const std::string kKey =
    "\x93\xab"
    "transformer\xa4"
    "ln_f\xa6"
    "kernel"s;
const std::string kRecord = "\x92"s + kKey + "\xc4\x1e\xc7\x1b\x01"s + kPayload;

void Parse(std::span<const std::byte> bytes) {
  for (const MsgpackTensor& tensor : ParseMsgpackCheckpoint(bytes, "x")) {
    uint64_t total = 0;
    for (const auto chunk : tensor.chunks) total += chunk.size();
    EXPECT_EQ(total, tensor.is_scalar ? 0 : TensorBytes(tensor.info));
    for (const auto chunk : tensor.chunks) HashHex(chunk);  // touches every byte
  }
}

// A record whose blob is the ext of `payload`.
std::string Record(const std::string& payload) {
  const auto size = static_cast<char>(payload.size());
  return "\x92\x91\xa1x\xc4"s + static_cast<char>(payload.size() + 3) + "\xc7"s + size + "\x01"s +
         payload;
}

TEST(MsgpackStreamTest, WorkedRecordReadsAsItsArray) {
  const auto tensors =
      ParseMsgpackCheckpoint(std::as_bytes(std::span(kRecord.data(), kRecord.size())), "x");
  ASSERT_EQ(tensors.size(), 1u);
  EXPECT_EQ(tensors[0].info.name, "transformer/ln_f/kernel");
  EXPECT_EQ(tensors[0].info.dtype, DType::kBF16);
  EXPECT_EQ(tensors[0].info.shape, (std::vector<int64_t>{2, 3}));
  ASSERT_EQ(tensors[0].chunks.size(), 1u);
  EXPECT_EQ(tensors[0].chunks[0].size(), 12u);
  EXPECT_EQ(tensors[0].chunks[0][0], std::byte{0x80});
}

TEST(MsgpackStreamTest, PublishedFilesOfEveryFormHoldTheirValues) {
  const auto folder = GoldenFolder("jax_msgpack");
  const SafetensorsSource values(folder / "zoo_values.safetensors");
  for (const char* name : {"zoo_streaming", "zoo_streaming_chunked", "zoo_flax_params"}) {
    const MsgpackSource source(folder / name);
    EXPECT_EQ(source.infos().size(), values.infos().size()) << name;
    for (const TensorInfo& info : values.infos()) ExpectSameTensor(source, values, info.name);
  }
  const MsgpackSource rounded(folder / "zoo_streaming_bf16");
  EXPECT_EQ(rounded.info("f64").dtype, DType::kBF16);
  EXPECT_EQ(rounded.info("pi").dtype, DType::kF64);
  ExpectSameTensor(rounded, values, "ids");
}

TEST(MsgpackStreamTest, PartsOfAChunkedArrayEqualTheWhole) {
  const MsgpackSource source(GoldenFolder("jax_msgpack") / "zoo_streaming_chunked");
  const size_t index = source.IndexOf("transformer/h/0/w");
  std::vector<std::byte> whole(TensorBytes(source.infos()[index]));
  source.ReadRange(index, 0, whole);
  for (const size_t begin : {0, 4, 396, 400, 404}) {
    std::vector<std::byte> part(whole.size() - begin - 8);
    source.ReadRange(index, begin, part);
    EXPECT_TRUE(std::equal(part.begin(), part.end(), whole.begin() + static_cast<long>(begin)));
  }
}

TEST(MsgpackStreamTest, TruncatedStreamIsReported) {
  EXPECT_NE(
      RefusalOf(ReadFile(GoldenFolder("jax_msgpack") / "zoo_truncated"), Parse).find("truncated"),
      std::string::npos);
}

TEST(MsgpackStreamTest, StreamCutInsideARecordIsRefused) {
  const std::string whole = kRecord + Record(kPayload);
  EXPECT_EQ(RefusalOf(whole, Parse), "");
  for (size_t size = 0; size < whole.size(); ++size) {
    if (size == kRecord.size()) continue;  // a whole record, and nothing says that more follow
    EXPECT_NE(RefusalOf(whole.substr(0, size), Parse), "") << size;
  }
}

TEST(MsgpackStreamTest, LiesAboutSizesAreNamed) {
  const std::string data =
      "\xc4\x04"
      "abcd";
  const auto array = [&](const std::string& shape, const std::string& dtype) {
    return RefusalOf(
        Record("\x93"s + shape + static_cast<char>(0xa0 + dtype.size()) + dtype + data), Parse);
  };
  EXPECT_EQ(array("\x91\x01", "float32"), "");
  EXPECT_NE(array("\x91\x02", "float32").find("do not fill"), std::string::npos);
  EXPECT_NE(array("\x91\x01", "float64").find("do not fill"), std::string::npos);
  EXPECT_NE(array("\x91\xff", "float32").find("do not fill"), std::string::npos);  // size -1
  EXPECT_NE(array("\x92\xcf\x40\0\0\0\0\0\0\0\x04"s, "int8").find("do not fill"),
            std::string::npos);
  EXPECT_NE(array("\x91\x01", "complex64").find("complex64"), std::string::npos);
  EXPECT_NE(array("\xdd\xff\xff\xff\xff"s, "float32").find("dimensions"), std::string::npos);
}

TEST(MsgpackStreamTest, InflatedLengthsAreRefusedWithoutMemory) {
  EXPECT_NE(RefusalOf("\x92\x91\xa1x\xc6\xff\xff\xff\xff"s, Parse).find("truncated"),
            std::string::npos);
  EXPECT_NE(RefusalOf("\xdf\xff\xff\xff\xff"s, Parse), "");
  EXPECT_NE(RefusalOf("\x92\xdd\xff\xff\xff\xff\xa1x"s, Parse), "");
  EXPECT_NE(RefusalOf("\x92\x91\xdb\xff\xff\xff\xffx"s, Parse), "");
}

TEST(MsgpackStreamTest, RepeatedKeyDeepNestingAndForeignExtensionAreRefused) {
  EXPECT_NE(RefusalOf("\x82\xa1x\x01\xa1x\x02"s, Parse).find("twice"), std::string::npos);
  std::string deep;
  for (int i = 0; i < 1000; ++i) deep += "\x81\xa1x"s;
  EXPECT_NE(RefusalOf(deep + "\x01", Parse).find("deep"), std::string::npos);
  EXPECT_NE(RefusalOf("\x92\x91\xa1x\xc4\x04\xc7\x01\x05z"s, Parse).find("extension type 5"),
            std::string::npos);
  EXPECT_NE(RefusalOf("\x92\x91\xa1x\xc4\x02\x01\x01"s, Parse).find("after the value"),
            std::string::npos);
}

}  // namespace
}  // namespace lwm::io
