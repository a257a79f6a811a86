#include "lwm/data/documents.h"

#include <gtest/gtest.h>
#include <unistd.h>

#include <fstream>

#include "lwm/base/error.h"
#include "lwm/data/training_text.h"
#include "lwm/data/unit_order.h"
#include "lwm/testing/error_of.h"
#include "lwm/testing/gzip_bytes.h"

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
    for (const DocumentFile& file : FindDocuments(patterns).files)
      names += file.path.filename().string() + (file.is_jsonl ? "* " : " ");
    return names;
  }

  std::string Notes(const std::vector<std::string>& patterns) const {
    std::string notes;
    for (const std::string& note : FindDocuments(patterns).notes) notes += note + "\n";
    return notes;
  }
  // The message of an Error of this code.
  std::string Refusal(const std::vector<std::string>& patterns, ErrorCode code) const {
    try {
      return "found " + Names(patterns);
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), code) << error.what();
      return error.what();
    }
  }

  fs::path folder_;
};

TEST_F(DocumentsTest, FilesFoldersAndGlobsAreFoundOnceAndInOrder) {
  EXPECT_EQ(Names({Path("")}), "a.jsonl* b.txt ");
  EXPECT_EQ(Names({Path("*.txt")}), "b.txt ");
  EXPECT_EQ(Names({Path("deep/[cd].*"), Path("")}), "d.bin a.jsonl* b.txt ");
  EXPECT_EQ(Names({Path("b.txt"), Path("deep/../b.txt")}), "b.txt ");
  for (const char* missing : {"none.txt", "*.md", "deep/none"})
    EXPECT_NE(Refusal({Path(missing)}, ErrorCode::kNotFound).find(missing), std::string::npos);
}

TEST_F(DocumentsTest, ContentDecidesNotTheSuffixAlone) {
  Write("C.JSONL", "{\"text\": \"c\"}");
  Write("d.txt", "{\"text\": \"d\"}\n{\"text\": \"e\"}\n");
  Write("e.json", "[{\"text\": \"e\"}]");
  Write("f.json", "{\"text\": \"f\"}\n");
  Write("g.jsonl.gz", testing_support::GzipBytes("{\"text\": \"g\"}\n"));
  Write("h.TXT.GZ", testing_support::GzipBytes("prose"));
  Write("i.jsonl", testing_support::GzipBytes("{\"text\": \"i\"}\n"));
  EXPECT_EQ(Names({Path("")}),
            "C.JSONL* a.jsonl* b.txt d.txt* e.json* f.json* g.jsonl.gz* h.TXT.GZ i.jsonl* ");
  EXPECT_TRUE(HoldsJsonl(Path("d.txt")));
  EXPECT_FALSE(HoldsJsonl(Path("b.txt")));
}

TEST_F(DocumentsTest, FilesOfAFolderThatAreLeftOutAreCountedByKind) {
  Write("e.csv", "a,b");
  Write("f.CSV", "a,b");
  Write("g.txt", "%PDF-1.4");
  Write("h.tar.gz", "x");
  Write("README", "x");
  Write(".hidden.csv", "x");
  Write("config.json", "{\n \"a\": 1\n}");
  Write("page.md", "<html>");
  EXPECT_EQ(Notes({Path("")}),
            Path("page.md") + " is an HTML page: its tags are read as text\n" +
                "8 files left out of " + Path("") +
                ": 1 .bin, 2 .csv, 1 .json (one JSON object), 1 .tar.gz, 1 .txt (a PDF document), "
                "1 .txt (empty), 1 without suffix\n");
  EXPECT_EQ(Notes({Path("b.txt"), Path("deep/c.txt")}),
            "1 file left out of " + Path("deep/c.txt") + ": 1 .txt (empty)\n");
  EXPECT_EQ(Notes({Path("b.txt")}), "");
}

TEST_F(DocumentsTest, FilesThatAreNamedAreReadOrRefused) {
  Write("e.csv", "a,b");
  Write("f.json", "{\n \"a\": 1\n}");
  Write("g.json", "just prose");
  Write("h.txt", "\x89PNG\r\n\x1A\n");
  const auto refusal = [&](const std::string& name) {
    return Refusal({Path(name)}, ErrorCode::kCorruptData).substr(Path(name).size());
  };
  const std::string want = "; want text, JSON lines or a JSON array of objects";
  EXPECT_EQ(refusal("e.csv"), ": is a table (CSV)" + want);
  EXPECT_EQ(refusal("f.json"), ": is one JSON object" + want);
  EXPECT_EQ(refusal("g.json"), ": is no JSON, as its name would have it" + want);
  EXPECT_EQ(refusal("h.txt"), ": is a PNG image" + want);
  EXPECT_EQ(refusal("deep/c.txt"), " is empty: there is no text to read");
  Write("deep/blank.txt", std::string(100000, ' '));
  EXPECT_EQ(Refusal({Path("deep/*.txt")}, ErrorCode::kCorruptData),
            Path("deep/blank.txt") + " is empty, and so are all 2 files: there is no text to read");
}

TEST_F(DocumentsTest, PackedFilesThatAreCutAreNoEmptyFiles) {
  Write("cut.txt.gz", testing_support::GzipBytes("some text").substr(0, 12));
  EXPECT_NE(Refusal({Path("cut.txt.gz")}, ErrorCode::kCorruptData).find("a truncated gzip file"),
            std::string::npos);
}

TEST_F(DocumentsTest, ArraysAreReadElementByElement) {
  Write("a.json", " [{\"a\": \"x, ]} \\\" [\"},\n {\"b\": [1, {\"c\": 2}]} , 3]\n");
  const JsonlFile file(Path("a.json"));
  ASSERT_EQ(file.lines(), 3);
  EXPECT_EQ(file.Parse(0)["a"], "x, ]} \" [");
  EXPECT_EQ(file.Parse(1)["b"][1]["c"], 2);
  EXPECT_EQ(file.where(1), Path("a.json") + " entry 2");
  EXPECT_ERROR(file.Parse(2), kCorruptData);
  Write("empty.json", "[]");
  EXPECT_TRUE(JsonlFile(Path("empty.json")).is_blank(0));
  for (const char* damaged :
       {"[{\"a\": 1}", "[{\"a\": 1}, {\"b", "[{\"a\": 1}]]", "[{]}", "[{\"a\": \"\\"}) {
    Write("bad.json", damaged);
    try {
      JsonlFile(Path("bad.json"));
      ADD_FAILURE() << damaged;
    } catch (const Error& error) {
      EXPECT_EQ(error.code(), ErrorCode::kCorruptData) << damaged;
      EXPECT_NE(std::string(error.what()).find("bad.json entry"), std::string::npos);
    }
  }
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
