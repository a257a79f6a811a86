#include "lwm/io/gguf_split.h"

#include <gtest/gtest.h>

#include <numeric>
#include <vector>

#include "lwm/base/error.h"
#include "lwm/base/file.h"
#include "lwm/io/gguf_writer.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/source_values.h"
#include "lwm/testing/temporary_folder.h"

namespace lwm::io {
namespace {
namespace fs = std::filesystem;

using testing_support::ExpectError;
using testing_support::TemporaryFolder;

struct Part {
  uint32_t number = 0, count = 3;  // as split.no and split.count say
  std::vector<std::string> tensors;
};

// Tensors of three numbers that differ from part to part.
void WritePart(const fs::path& file, const Part& part) {
  GgufKeys keys;
  if (part.number == 0) keys.AddText("general.architecture", "llama");
  keys.AddUnsigned("split.no", part.number);
  keys.AddUnsigned("split.count", part.count);
  keys.AddUnsigned("split.tensors.count", 4);
  std::vector<GgufWriter::Tensor> infos;
  for (const std::string& name : part.tensors) infos.push_back({name, {3}, GgufType::kF32});
  GgufWriter writer(file, keys, infos);
  std::vector<float> values(3, static_cast<float>(part.number));
  for (const std::string& name : part.tensors) writer.Write(name, std::as_bytes(std::span(values)));
  writer.Finish();
}

class GgufSplitTest : public testing::Test {
 protected:
  GgufSplitTest() {
    WritePart(Path(1), {0, 3, {"a", "b"}});
    WritePart(Path(2), {1, 3, {"c"}});
    WritePart(Path(3), {2, 3, {"d"}});
  }
  fs::path Path(int number) const {
    return folder_ / ("m-0000" + std::to_string(number) + "-of-00003.gguf");
  }
  void ExpectRefused(ErrorCode code, const std::vector<std::string>& parts) const {
    ExpectError([&] { GgufSource source(Path(1)); }, code, parts);
  }

  TemporaryFolder folder_;
};

TEST_F(GgufSplitTest, AnyPartOpensAllOfThem) {
  for (int number = 1; number <= 3; ++number) {
    const GgufSource source(Path(number));
    EXPECT_EQ(source.infos().size(), 4u);
    EXPECT_EQ(source.metadata().Text("general.architecture"), "llama");
    EXPECT_EQ(testing_support::ValuesOf(source, "b"), std::vector<double>(3, 0));
    EXPECT_EQ(testing_support::ValuesOf(source, "d"), std::vector<double>(3, 2));
  }
  EXPECT_EQ(FirstGgufPart(Path(3)), Path(1));
}

TEST_F(GgufSplitTest, OtherNamesAreFilesOfTheirOwn) {
  for (const char* name : {"m.gguf", "m-00001-of-00003.bin", "m-1-of-3.gguf", "-of-.gguf",
                           "m-00004-of-00003.gguf", "m-00000-of-00003.gguf"}) {
    EXPECT_EQ(GgufParts(name), std::vector<fs::path>{name});
    EXPECT_EQ(FirstGgufPart(name), fs::path(name));
  }
}

TEST_F(GgufSplitTest, MissingPartsAreNamed) {
  fs::remove(Path(2));
  ExpectRefused(ErrorCode::kNotFound,
                {"split in 3 files", "1 is missing", "m-00002-of-00003.gguf", "incomplete"});
  fs::remove(Path(3));
  ExpectRefused(ErrorCode::kNotFound, {"2 are missing", "m-00002-of-00003.gguf ..."});
}

TEST_F(GgufSplitTest, PartsThatDoNotBelongTogetherAreNamed) {
  WritePart(Path(2), {2, 3, {"c"}});
  ExpectRefused(ErrorCode::kCorruptData,
                {"m-00002-of-00003.gguf", "by its name part 2 of 3", "says part 3 of 3"});
  WritePart(Path(2), {1, 4, {"c"}});
  ExpectRefused(ErrorCode::kCorruptData, {"says part 2 of 4"});
  WritePart(Path(2), {1, 3, {"a"}});
  ExpectRefused(ErrorCode::kCorruptData, {"tensor a appears twice"});
  WritePart(Path(2), {1, 3, {"c", "e"}});
  ExpectRefused(ErrorCode::kCorruptData, {"the 3 parts hold 5 tensors, the first says 4"});
}

TEST_F(GgufSplitTest, RenamedPartIsToldFromAWholeFile) {
  fs::rename(Path(2), folder_ / "renamed.gguf");
  ExpectError([&] { GgufSource source(folder_ / "renamed.gguf"); }, ErrorCode::kCorruptData,
              {"part 2 of 3 of a split model", "NAME-00002-of-00003.gguf"});
}

TEST_F(GgufSplitTest, CutPartSaysHowMuchIsMissing) {
  fs::resize_file(Path(3), fs::file_size(Path(3)) - 5);
  GgufSource whole(folder_ / "m-00001-of-00003.gguf");  // padding is cut, no number
  fs::resize_file(Path(3), fs::file_size(Path(3)) - 20);
  ExpectRefused(ErrorCode::kCorruptData, {"m-00003-of-00003.gguf", "truncated: 5 of"});
}

}  // namespace
}  // namespace lwm::io
