#include "lwm/io/torch_source.h"

#include <gtest/gtest.h>

#include "lwm/base/file.h"
#include "lwm/io/safetensors_source.h"
#include "lwm/io/zip.h"
#include "lwm/testing/damage.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/golden_folder.h"
#include "lwm/testing/read_stored.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {

using testing_support::GoldenFolder;
using testing_support::TemporaryFolder;

// The archive without checksums, so that changes reach the pickle's reader.
std::string Content() {
  std::string content = ReadFile(GoldenFolder("torch_zip") / "state.bin");
  for (size_t at = 0; (at = content.find("PK\x01\x02", at)) != std::string::npos; at += 4)
    content.replace(at + 16, 4, 4, '\0');
  return content;
}

void Parse(std::span<const std::byte> bytes) {
  testing_support::ReadStored(ParseTorchFile(bytes, "x"));
}

// The file with `from` replaced by `to` of equal length.
std::string Replaced(std::string content, const std::string& from, const std::string& to) {
  const size_t at = content.find(from);
  EXPECT_NE(at, std::string::npos);
  EXPECT_EQ(from.size(), to.size());
  return content.replace(at, to.size(), to);
}

TEST(TorchSourceTest, ViewsStridesAndEveryTypeAreReadAsTorchSavedThem) {
  const auto folder = GoldenFolder("torch_zip");
  const SafetensorsSource values(folder / "values.safetensors");
  const TorchSource source(folder / "state.bin");
  EXPECT_EQ(source.infos().size(), values.infos().size());
  for (const TensorInfo& info : values.infos()) {
    testing_support::ExpectSameTensor(source, values, info.name);
    EXPECT_EQ(source.info(info.name).dtype, info.dtype);
  }
}

TEST(TorchSourceTest, ForeignFunctionsAreRefusedByName) {
  const std::string content = Replaced(Content(), "_rebuild_tensor_v2", "_rebuild_tensor_v9");
  EXPECT_NE(testing_support::RefusalOf(content, Parse).find("torch._utils._rebuild_tensor_v9"),
            std::string::npos);
}

TEST(TorchSourceTest, StorageSmallerThanItsTensorIsRefused) {
  // DoubleStorage of 12 numbers: the pickle says 13.
  const std::string content = Replaced(Content(), "cpuq\x07K\x0c", "cpuq\x07K\x0d");
  EXPECT_NE(testing_support::RefusalOf(content, Parse).find("has only 96 bytes"),
            std::string::npos);
}

TEST(TorchSourceTest, CutArchiveSaysHowMuchIsMissing) {
  // DoubleStorage of 12 numbers: the pickle, of 1572 bytes, says 255, so 2644 bytes in all.
  const std::string content = Replaced(Content(), "cpuq\x07K\x0c", "cpuq\x07K\xff");
  const auto refusal = [&](size_t size) {
    return testing_support::RefusalOf(content.substr(0, size), Parse);
  };
  EXPECT_EQ(refusal(1900),
            "x: truncated: of 2644 bytes of weights at least 744 are missing; the download is "
            "incomplete");
  for (const size_t size : {size_t{40}, size_t{700}, content.size() - 1})
    EXPECT_NE(refusal(size).find("download is incomplete"), std::string::npos) << refusal(size);
}

TEST(TorchSourceTest, CompressedArchiveIsRefused) {
  std::string content = Content();
  const size_t central = content.find("PK\x01\x02");
  content[central + 10] = 8;  // deflate
  EXPECT_NE(testing_support::RefusalOf(content, Parse).find("compressed"), std::string::npos);
}

TEST(TorchSourceTest, ShardsAreJoinedThroughTheirIndex) {
  TemporaryFolder folder;
  WriteFileAtomically(folder / "a.bin", Content());
  WriteFileAtomically(folder / "pytorch_model.bin.index.json",
                      R"({"weight_map":{"rows":"a.bin","cube":"a.bin"}})");
  const TorchSource source(folder / "pytorch_model.bin.index.json");
  EXPECT_TRUE(source.contains("rows"));
  WriteFileAtomically(folder / "pytorch_model.bin.index.json",
                      R"({"weight_map":{"absent":"a.bin"}})");
  EXPECT_ERROR(TorchSource(folder / "pytorch_model.bin.index.json"), kCorruptData);
  WriteFileAtomically(folder / "pytorch_model.bin.index.json",
                      R"({"weight_map":{"rows":"b.bin"}})");
  EXPECT_ERROR(TorchSource(folder / "pytorch_model.bin.index.json"), kNotFound);
}

}  // namespace
}  // namespace lwm::io
