#include "lwm/data/documents.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "lwm/base/error.h"
#include "lwm/data/training_text.h"
#include "lwm/data/unit_order.h"

namespace lwm::data {
namespace fs = std::filesystem;
namespace {

class DocumentsTest : public testing::Test {
 protected:
  DocumentsTest() : folder_(fs::path(testing::TempDir()) / Cat("documents_test_", getpid())) {
    fs::create_directories(folder_ / "deep");
    Write("b.txt", "two\r\n\nthree");
    Write("a.jsonl",
          "{\"text\": \"one\"}\r\n\n  \n{\"fields\": \"x,y\", \"x\": \"p\\nq\", \"y\": 3}");
    Write("deep/c.txt", "");
    Write("deep/d.bin", "x");
  }
  ~DocumentsTest() override { fs::remove_all(folder_); }
  void Write(const std::string& name, const std::string& content) {
    std::ofstream(folder_ / name, std::ios::binary) << content;
  }
  std::string Path(const std::string& name) const { return (folder_ / name).string(); }
  std::string Names(const std::vector<std::string>& patterns) const {
    std::string names;
    for (const DocumentFile& file : FindDocuments(patterns))
      names += file.path.filename().string() + (file.is_jsonl ? "* " : " ");
    return names;
  }

  fs::path folder_;
};

TEST_F(DocumentsTest, FilesFoldersAndGlobsAreFoundOnceAndInOrder) {
  EXPECT_EQ(Names({Path("")}), "a.jsonl* b.txt c.txt ");
  EXPECT_EQ(Names({Path("*.txt")}), "b.txt ");
  EXPECT_EQ(Names({Path("deep/[cd].*"), Path("")}), "c.txt d.bin a.jsonl* b.txt ");
  EXPECT_EQ(Names({Path("b.txt"), Path("deep/../b.txt")}), "b.txt ");
  for (const char* missing : {"none.txt", "*.md", "deep/none"})
    EXPECT_THROW(Names({Path(missing)}), Error) << missing;
}

TEST_F(DocumentsTest, JsonlLinesAreCountedWithBlanksAndWithoutTheirEnds) {
  const JsonlFile file(Path("a.jsonl"));
  ASSERT_EQ(file.lines(), 4);
  EXPECT_EQ(file.line(0), "{\"text\": \"one\"}");
  EXPECT_TRUE(file.is_blank(1) && file.is_blank(2));
  EXPECT_EQ(file.Parse(3)["x"], "p\nq");
  EXPECT_EQ(file.where(3), Path("a.jsonl") + ":4");
  EXPECT_EQ(JsonlFile(Path("deep/c.txt")).lines(), 0);
  Write("bad.jsonl", "[1]\n{\"a\"");
  const JsonlFile bad(Path("bad.jsonl"));
  for (int64_t line = 0; line < 2; ++line) {
    try {
      bad.Parse(line);
      FAIL();
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData);
      EXPECT_NE(std::string(error.what()).find(Cat("bad.jsonl:", line + 1, ":")),
                std::string::npos);
    }
  }
}

TEST_F(DocumentsTest, TrainingTextIsTheLinesOfAllStrings) {
  Write("long.txt", "a" + std::string(TrainingText::kMaxLineBytes - 2, 'x') + "é" + "end\n");
  TrainingText text({Path("")});
  std::vector<std::string> lines;
  for (std::string line; text.NextLine(line);) lines.push_back(line);
  ASSERT_EQ(lines.size(), 7u);
  EXPECT_EQ((std::vector<std::string>(lines.begin(), lines.begin() + 5)),
            (std::vector<std::string>{"one", "p", "q", "two", "three"}));
  EXPECT_EQ(lines[5].size(), TrainingText::kMaxLineBytes - 1);  // cut before the two-byte é
  EXPECT_EQ(lines[6], "éend");
  EXPECT_EQ(text.lines(), 7);
}

TEST(UnitOrderTest, PermutationHitsEveryIndexOnce) {
  for (const int64_t size : {1, 2, 3, 4, 5, 16, 17, 63, 1000}) {
    std::vector<int> hits(static_cast<size_t>(size), 0);
    const Permutation permutation(7, size);
    for (int64_t i = 0; i < size; ++i) ++hits[static_cast<size_t>(permutation.At(i))];
    for (const int hit : hits) ASSERT_EQ(hit, 1) << size;
  }
}

TEST(UnitOrderTest, PermutationsAreSpreadOverAllOrders) {
  // Over many keys every index comes first about equally often: chi-squared with 19 degrees of
  // freedom is below 44 with probability 0.999.
  constexpr int kSize = 20, kKeys = 4000;
  std::vector<int> first(kSize, 0);
  for (uint64_t key = 0; key < kKeys; ++key)
    ++first[static_cast<size_t>(Permutation(key, kSize).At(0))];
  double chi_squared = 0;
  for (const int count : first) {
    const double expected = static_cast<double>(kKeys) / kSize;
    chi_squared += (count - expected) * (count - expected) / expected;
  }
  EXPECT_LT(chi_squared, 44);
}

TEST(UnitOrderTest, EpochsOrderTheSameUnitsAnew) {
  const UnitOrder order(3, 100, 10);
  std::vector<int> seen(100, 0);
  int same_place = 0;
  for (int64_t i = 0; i < 90; ++i) {
    ++seen[static_cast<size_t>(order.TrainVisit(i).unit)];
    ++seen[static_cast<size_t>(order.TrainVisit(i + 90).unit)];
    same_place += order.TrainVisit(i).unit == order.TrainVisit(i + 90).unit;
  }
  EXPECT_LT(same_place, 8);
  for (int64_t i = 0; i < 10; ++i) seen[static_cast<size_t>(order.HeldOutUnit(i))] += 2;
  EXPECT_EQ(seen, std::vector<int>(100, 2));
}

}  // namespace
}  // namespace lwm::data
